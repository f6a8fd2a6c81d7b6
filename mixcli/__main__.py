"""Entry point of `mixcli` and `python -m mixcli`: set up signals and standard streams before slow imports.

Ctrl-C while Python still imports ends the process at once and without a word; from then on cli.py decides.
"""

import atexit
import os
import signal
import sys
import warnings
from typing import NoReturn

SYSTEM: str = sys.platform
EXIT_INTERRUPTED = 130
EXIT_NO_MEMORY = 4
MIN_ADDRESS_SPACE = 144 << 20  # bytes; with less, numpy's BLAS asks for its buffers forever, deaf to signals


def main() -> NoReturn:
    """Run the command line."""
    if SYSTEM == "win32":  # before anything that Windows does not have
        sys.exit(
            "mixcli: Windows is not supported; install mixcli in WSL 2, which uses the same GPU: see docs/windows.md"
        )
    if (
        signal.getsignal(signal.SIGINT) is not signal.SIG_IGN
    ):  # a shell ignores it for what runs in the background
        signal.signal(signal.SIGINT, _leave)
    _read_utf8()
    atexit.register(_keep_code)  # the first to be registered runs last
    _open_standard_streams()
    if not sys.warnoptions:
        warnings.simplefilter("ignore")  # they are for those who develop the libraries
    # nothing here multiplies matrices with numpy: a BLAS without threads starts faster, in half the memory
    os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
    _check_address_space()
    from mixcli.cli import main as run

    try:
        run()
    except KeyboardInterrupt:  # before or after the command, where nothing else catches it
        os._exit(EXIT_INTERRUPTED)


def _check_address_space() -> None:
    try:
        import resource
    except ImportError:
        return
    limit, _ = resource.getrlimit(resource.RLIMIT_AS)
    if 0 <= limit < MIN_ADDRESS_SPACE:
        os.write(
            2,
            f"mixcli: the memory limit (ulimit -v) is {limit >> 10:,} KiB; raise it to at least {MIN_ADDRESS_SPACE >> 10:,} KiB\n".encode(),
        )
        os._exit(EXIT_NO_MEMORY)


def _leave(_number: int, _frame: object) -> NoReturn:
    os._exit(EXIT_INTERRUPTED)


def _read_utf8() -> None:
    """Start again in Python's UTF-8 mode where the locale has another encoding, as LANG=de_DE has: terminals and pipes speak UTF-8 there too.

    Words of the command line would be misread without a sign of it; the processes that are started later read paths in the same way.
    """
    if sys.getfilesystemencoding() == "utf-8" or sys.flags.utf8_mode or not sys.executable:
        return
    os.environ["PYTHONUTF8"] = "1"
    os.execv(sys.executable, [sys.executable, "-X", "utf8", *sys.orig_argv[1:]])


def _keep_code() -> None:
    """Ignore signals while Python tidies up, which takes no time: it gives handlers up first, and the system would replace the exit code."""
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)


def _open_standard_streams() -> None:
    """Put /dev/null where stdin, stdout or stderr is closed: else the next file that is opened takes its number and gets what is written there."""
    for number in range(3):
        try:
            os.fstat(number)
        except OSError:
            os.set_inheritable(os.open(os.devnull, os.O_RDWR), True)


if __name__ == "__main__":
    main()
