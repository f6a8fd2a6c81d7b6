"""Divide the CPU cores among the hosts that are computing.

llama.cpp's threads wait for one another by spinning; two models with as many threads as there are cores do not get half the speed each, but
a tenth. A host that computes holds a lock on a file of its own in the private runtime folder; the others see that it is held.
Where the file system has no locks, the file says when its process began, and one that still runs counts as computing.
"""

import contextlib
import fcntl
import os
import time
from pathlib import Path

from mixcli.system.locks import NO_LOCKS
from mixcli.system.process_state import born

POLL_INTERVAL = 1.0  # seconds between two looks at who else computes


class CpuArbiter:
    """What one host reports of itself, and reads of others, in `folder`."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._path = folder / f"{os.getpid()}.busy"
        self._handle: int | None = None
        self._looked = 0.0
        self._n_others = 0

    def busy(self) -> int:
        """Mark this host as computing and return how many others are; the count is kept for a second."""
        now = time.monotonic()
        if now - self._looked >= POLL_INTERVAL:
            self._looked = now
            try:
                self._n_others = self._look()
            except OSError:  # a folder that is gone or full: then this host is alone
                self._n_others = 0
        return self._n_others

    def _look(self) -> int:
        if self._handle is None:
            handle = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
            try:
                os.pwrite(handle, born(os.getpid()).encode("ascii"), 0)
                _lock(handle)
            except OSError:
                os.close(handle)
                raise
            self._handle = handle
        return sum(self._is_held(path) for path in self._folder.glob("*.busy") if path != self._path)

    def idle(self) -> None:
        """Mark this host as idle."""
        self._looked = 0.0
        if self._handle is not None:
            with contextlib.suppress(OSError):
                self._path.unlink(missing_ok=True)
            os.close(self._handle)
            self._handle = None

    @staticmethod
    def _is_held(path: Path) -> bool:
        """Return whether a process holds the lock; remove the files of dead hosts."""
        try:
            handle = os.open(path, os.O_RDWR | os.O_CLOEXEC)
        except OSError:
            return False
        try:
            if not _lock(handle) and _runs(path.stem, os.pread(handle, 100, 0)):
                return True
        except BlockingIOError:
            return True
        else:
            with contextlib.suppress(OSError):
                path.unlink()
            return False
        finally:
            os.close(handle)


def _lock(handle: int) -> bool:
    """Lock a file; False where the file system has no locks. Raises BlockingIOError where another process has it."""
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        raise
    except OSError as error:
        if error.errno not in NO_LOCKS:
            raise
        return False
    return True


def _runs(pid: str, began: bytes) -> bool:
    return pid.isdigit() and bool(began) and born(int(pid)).encode("ascii") == began
