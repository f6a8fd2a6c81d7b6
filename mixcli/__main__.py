"""Entry point of `mixcli` and `python -m mixcli`: set up signals and standard streams before slow imports.

Ctrl-C while Python still imports ends the process at once and without a word; from then on cli.py decides.
"""

import os
import signal
from typing import NoReturn

EXIT_INTERRUPTED = 130


def main() -> NoReturn:
    """Run the command line."""
    if (
        signal.getsignal(signal.SIGINT) is not signal.SIG_IGN
    ):  # a shell ignores it for what runs in the background
        signal.signal(signal.SIGINT, _leave)
    _open_standard_streams()
    from mixcli.cli import main as run

    run()


def _leave(_number: int, _frame: object) -> NoReturn:
    os._exit(EXIT_INTERRUPTED)


def _open_standard_streams() -> None:
    """Put /dev/null where stdin, stdout or stderr is closed: else the next file that is opened takes its number and gets what is written there."""
    for number in range(3):
        try:
            os.fstat(number)
        except OSError:
            os.set_inheritable(os.open(os.devnull, os.O_RDWR), True)


if __name__ == "__main__":
    main()
