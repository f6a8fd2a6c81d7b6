"""One process at a time: an advisory lock on a file, released by the kernel when its holder ends in whatever way.

Some file systems have no locks (NFS without its lock daemon, FUSE). There a file of the same meaning in the private runtime folder is
locked instead, which keeps the processes of this machine apart; where that has no locks either, things go on without.
"""

import errno
import fcntl
import hashlib
import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from mixcli import paths
from mixcli.errors import MixcliError

POLL = 0.2  # seconds between two looks at a lock that somebody else has
QUICK = 0.01  # the first ones, for work that takes no time
LONGEST = 600.0  # seconds that are waited where nobody is told
NO_LOCKS = {errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP, errno.EINVAL, errno.EIO}


@contextmanager
def exclusive(
    path: Path, waiting: Callable[[], None] | None = None, *, seconds: float = LONGEST, what: str = ""
) -> Iterator[None]:
    """Wait for the lock on `path` and hold it; `waiting` is called again and again while somebody else has it.

    Without `waiting` nobody would know, so there is an end: after `seconds` MixcliError names the process that has the lock and `what` it
    does. The holder writes its process id into the file for that.

    mixcli never removes such a file; should another program do so, the lock is taken on the new one. Raises OSError for a file that
    cannot be made, or a link in its place.
    """
    handle = _open(path)
    deadline = time.monotonic() + seconds
    try:
        while True:
            try:
                pause = QUICK
                while not _taken(handle):
                    if waiting:
                        waiting()
                    elif time.monotonic() >= deadline:
                        raise MixcliError(_held(path, handle, seconds, what))
                    time.sleep(pause)
                    pause = min(POLL, 2 * pause)
            except OSError as error:
                if error.errno not in NO_LOCKS:
                    raise
                stand_in = _stand_in(path)
                if stand_in is None or path == stand_in:
                    break  # no locks anywhere
                path = stand_in
            else:
                if _is_still(path, handle):
                    break
            os.close(handle)
            handle = _open(path)
        _sign(handle)
        yield
    finally:
        os.close(handle)


def _open(path: Path) -> int:
    return os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)


def _is_still(path: Path, handle: int) -> bool:
    """Return whether a name is still the file that was opened by it."""
    try:
        return os.path.samestat(os.fstat(handle), path.stat())
    except FileNotFoundError:
        return False


def _stand_in(path: Path) -> Path | None:
    """Return the file that is locked on this machine for a path without locks."""
    try:
        folder = paths.runtime_dir()
    except OSError:
        return None
    name = (
        path.name if path.parent == folder else hashlib.sha256(os.fsencode(path.absolute())).hexdigest()[:24]
    )
    return folder / f"{name.removesuffix('.lock')}.lock"


def _sign(handle: int) -> None:
    """Write who has the lock; a full disk is no reason not to have it."""
    with suppress(OSError):
        os.ftruncate(handle, 0)
        os.pwrite(handle, f"{os.getpid()}\n".encode("ascii"), 0)


def _held(path: Path, handle: int, seconds: float, what: str) -> str:
    said = os.pread(handle, 20, 0).strip()
    pid = int(said) if said.isdigit() else 0
    who = f"process {pid}" if pid else "another process"
    end = f"end it with `kill {pid}`" if pid else "end it"
    return f"{who} {what or 'works on the same file'} and has not finished for {seconds:.0f} s; {end} if it hangs (lock {path})"


def _taken(handle: int) -> bool:
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True
