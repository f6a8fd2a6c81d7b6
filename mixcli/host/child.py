"""A process that may outlive the one that started it."""

import os
import signal
import sys
import threading
import time
from pathlib import Path


class Child:
    """A started process: its pid, and how it ended once it has (a negative number is a signal, as in subprocess).

    subprocess.Popen is not used because it complains about a child that goes on after its parent, which is what a host is for.
    """

    def __init__(self, pid: int) -> None:
        self.pid = pid
        self._code: int | None = None
        self._lock = threading.Lock()  # of two threads that ask, only one may hear how it ended

    @classmethod
    def start(cls, module: str, argument: str, log: Path) -> "Child":
        """Run `python -m module argument` in a session of its own, its output in `log`; the present folder is not importable there."""
        command = [sys.executable, "-P", "-m", module, argument]
        write = os.O_WRONLY | os.O_CREAT | os.O_TRUNC
        streams = [
            (os.POSIX_SPAWN_OPEN, 0, os.devnull, os.O_RDONLY, 0),
            (os.POSIX_SPAWN_OPEN, 1, os.fspath(log), write, 0o600),
            (os.POSIX_SPAWN_DUP2, 1, 2),
        ]
        default = [signal.SIGINT, signal.SIGTERM, signal.SIGPIPE]
        pid = os.posix_spawn(
            sys.executable,
            command,
            os.environ,
            file_actions=streams,
            setsid=True,
            setsigdef=default,
            setsigmask=[],
        )
        return cls(pid)

    def poll(self) -> int | None:
        """Give the exit code, or None while it runs."""
        with self._lock:
            if self._code is None:
                try:
                    pid, status = os.waitpid(self.pid, os.WNOHANG)
                except ChildProcessError:  # somebody else has waited for it
                    pid, status = self.pid, 0
                if pid:
                    self._code = os.waitstatus_to_exitcode(status)
            return self._code

    def wait(self, seconds: float) -> int | None:
        """Give the exit code, waiting for it at most so long."""
        deadline = time.monotonic() + seconds
        while (code := self.poll()) is None and time.monotonic() < deadline:
            time.sleep(0.01)
        return code
