"""One process at a time: an advisory lock on a file, released by the kernel when its holder ends in whatever way."""

import fcntl
import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

POLL = 0.2  # seconds between two looks at a lock that somebody else has


@contextmanager
def exclusive(path: Path, waiting: Callable[[], None] | None = None) -> Iterator[None]:
    """Wait for the lock on `path` and hold it; `waiting` is called again and again while somebody else has it.

    mixcli never removes such a file; should another program do so, the lock is taken on the new one.
    """
    handle = _open(path)
    try:
        while True:
            while not _taken(handle, block=waiting is None):
                if waiting:
                    waiting()
                time.sleep(POLL)
            if path.exists() and os.path.samestat(os.fstat(handle), path.stat()):
                break
            os.close(handle)
            handle = _open(path)
        yield
    finally:
        os.close(handle)


def _open(path: Path) -> int:
    return os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)


def _taken(handle: int, *, block: bool) -> bool:
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | (0 if block else fcntl.LOCK_NB))
    except BlockingIOError:
        return False
    return True
