"""A child process that may outlive its parent."""

import os
import signal
import threading
from pathlib import Path

from mixcli.errors import MixcliError
from mixcli.system import python_child


class Child:
    """A started process: its pid, and how it ended once it has (a negative number is a signal, as in subprocess).

    A thread waits for its end, so that it never stays as a zombie. subprocess.Popen is not used because it warns about a child that
    outlives its parent, as a host does.
    """

    def __init__(self, pid: int) -> None:
        self.pid = pid
        self._code: int | None = None
        self._ended = threading.Event()
        threading.Thread(target=self._reap, name=f"child {pid}", daemon=True).start()

    @classmethod
    def start(cls, module: str, argument: str, log: Path) -> "Child":
        """Run `python -m module argument` in a session of its own, its output in `log`; the current folder is not importable there."""
        command = python_child.command("-m", module, argument)
        output = _new_file(log)
        streams = [
            (os.POSIX_SPAWN_OPEN, 0, os.devnull, os.O_RDONLY, 0),
            (os.POSIX_SPAWN_DUP2, output, 1),
            (os.POSIX_SPAWN_DUP2, output, 2),
        ]
        default = [signal.SIGINT, signal.SIGTERM, signal.SIGPIPE]
        try:
            pid = os.posix_spawn(
                command[0],
                command,
                python_child.environment(),
                file_actions=streams,
                setsid=True,
                setsigdef=default,
                setsigmask=[],
            )
        except OSError as error:
            raise MixcliError(
                f"the model process cannot be started: {error.strerror or error} ({command[0]}, log {log})"
            ) from error
        finally:
            os.close(output)
        return cls(pid)

    def poll(self) -> int | None:
        """Return the exit code, or None while it runs."""
        return self._code

    def wait(self, seconds: float) -> int | None:
        """Return the exit code, waiting for it at most so long."""
        self._ended.wait(seconds)
        return self._code

    def _reap(self) -> None:
        try:
            self._code = os.waitstatus_to_exitcode(os.waitpid(self.pid, 0)[1])
        except ChildProcessError:  # another process has waited for it
            self._code = 0
        self._ended.set()


def _new_file(path: Path) -> int:
    """Create a file in place of what has its name, and return its descriptor; a FIFO there would block the start of the child for good."""
    path.unlink(missing_ok=True)
    return os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
