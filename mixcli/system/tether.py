"""Run any program so that it ends with the process that started it: `python -I -S tether.py PARENT COMMAND ...`.

PARENT is the number of that process. It needs no pipe of its own, as lifeline.py does: a library that starts programs passes none on. Leads
the process group, which is killed when the parent is gone; ends with the program, with its exit code.
"""

import os
import signal
import subprocess
import sys
import threading
import time

POLL_INTERVAL = 0.2  # seconds between two looks at the parent


def _end_with(parent: int) -> None:
    while os.getppid() == parent:
        time.sleep(POLL_INTERVAL)
    os.killpg(0, signal.SIGKILL)


def main() -> int:
    """Run the command, which alone has stdin and stdout."""
    parent, *command = sys.argv[1:]
    signal.signal(signal.SIGTERM, lambda *_: None)  # the program's to follow; its end is this one's
    try:
        process = subprocess.Popen(command)
    except OSError as error:
        sys.stderr.write(f"{error}\n")
        return 127
    nothing = os.open(os.devnull, os.O_RDWR)
    for number in (0, 1):
        os.dup2(nothing, number)
    threading.Thread(target=_end_with, args=(int(parent),), name="tether", daemon=True).start()
    code = process.wait()
    return code if code >= 0 else 128 - code


if __name__ == "__main__":
    sys.exit(main())
