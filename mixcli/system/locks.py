"""Advisory file locks that the kernel releases when the holder ends.

Some file systems have no locks (NFS without its lock daemon, FUSE). There a file of the same meaning in the private runtime folder is
locked instead, which keeps the processes of this machine apart; where that has no locks either, mixcli continues without one.
"""

import errno
import fcntl
import hashlib
import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from functools import cache
from pathlib import Path
from typing import NamedTuple

from mixcli.errors import InUse
from mixcli.system import paths
from mixcli.system.process_state import STOPPED, born, computed, lock_holder, state

POLL = 0.2  # seconds between two looks at a lock that another process has
QUICK = 0.01  # the first ones, for work that takes no time
LONGEST = 600.0  # seconds to wait without `waiting`, or for an idle holder
BUSY = 3600.0  # seconds that are waited for a holder that computes and shows no progress: it may check a large file
FROZEN = 30.0  # seconds that are waited for a holder that is stopped
POLL_INTERVAL = 1.0  # seconds between two looks at the holder
NO_LOCKS = {
    errno.ENOLCK,
    errno.ENOSYS,
    errno.EOPNOTSUPP,
    errno.ENOTSUP,
    errno.EINVAL,
    errno.EIO,
}  # two of them are one on Linux

# Called again and again while another process has a lock, with words for who that is; returns what is seen of the progress, to compare
Waiting = Callable[[str], object]


@contextmanager
def exclusive(
    path: Path,
    waiting: Waiting | None = None,
    *,
    seconds: float = LONGEST,
    what: str = "using the same file",
) -> Iterator[None]:
    """Wait for the lock on `path` and hold it; `waiting` is called again and again while another process has it.

    Every wait has an end in InUse, which names the process that has the lock, `what` it is doing, and the next step: after
    `seconds`, without `waiting`; else when what `waiting` returns has not changed for LONGEST seconds, for BUSY
    seconds if the holder computes, or when the holder has been stopped for FROZEN seconds. The holder writes its process id into the file for that.

    Should such a file be removed meanwhile, the lock is taken on the new one. Raises OSError for a file that
    cannot be made, or a link in its place.
    """
    handle = _open(path)
    patience = _Patience(waiting, seconds, what)
    try:
        while True:
            try:
                pause = QUICK
                while not _taken(handle):
                    patience.look(path, handle)
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
                if is_still(path, handle):
                    break
            again = _open(path)  # may fail, and the other one is to be closed once
            os.close(handle)
            handle = again
        _sign(handle)
        yield
    finally:
        os.close(handle)


class _Holder(NamedTuple):
    """The process that has a lock, as far as the system tells: `pid` is 0 and `since` empty where it does not."""

    pid: int
    since: str
    is_stopped: bool
    computed: str

    def words(self, what: str) -> str:
        """Return the holder in one clause: process, activity, start time, and whether it is stopped."""
        who = f"process {self.pid}" if self.pid else "another process"
        doing = f"has been {what} since {self.since}" if self.since else f"is {what}"
        stopped = f"; it is stopped, and `kill -CONT {self.pid}` continues it" if self.is_stopped else ""
        return f"{who} {doing}{stopped}"


class _Patience:
    """The time limit of waiting for a lock."""

    def __init__(self, waiting: Waiting | None, seconds: float, what: str) -> None:
        self._waiting, self._seconds, self._what = waiting, seconds, what
        self._begin = self._moved = self._computed = self._ran = time.monotonic()
        self._looked = -POLL_INTERVAL
        self._holder = _Holder(0, "", False, "")
        self._seen: object = None

    def look(self, path: Path, handle: int) -> None:
        """Look at the holder; raises InUse when it was waited for long enough."""
        now = time.monotonic()
        if self._waiting is None:
            if now - self._begin >= self._seconds:
                holder = _holder(handle)
                raise InUse(
                    f"{self._tell(holder)} and has not finished for {self._seconds:.0f} s{_end(holder)} (lock {path})"
                )
            return
        if now - self._looked >= POLL_INTERVAL:
            before, self._looked, self._holder = self._holder, now, _holder(handle)
            if self._holder.computed != before.computed:
                self._computed = now
        holder = self._holder
        seen = self._waiting(holder.words(self._what)), holder.pid
        if seen != self._seen:
            self._seen, self._moved = seen, now
        if not holder.is_stopped:
            self._ran = now
        if now - self._ran >= FROZEN:
            raise InUse(
                f"{self._tell(holder)} and has been stopped for {FROZEN:.0f} s; continue it with `kill -CONT {holder.pid}`, "
                f"or end it with `kill -KILL {holder.pid}` and rerun the command"
            )
        idle = now - self._moved
        if idle >= (LONGEST if now - self._computed >= LONGEST else BUSY):
            raise InUse(
                f"{self._tell(holder)} and has made no progress for {idle:.0f} s{_end(holder)} (lock {path})"
            )

    def _tell(self, holder: _Holder) -> str:
        return holder._replace(is_stopped=False).words(self._what)


def _end(holder: _Holder) -> str:
    if holder.is_stopped:
        return f"; it is stopped: continue it with `kill -CONT {holder.pid}`"
    return f"; end it with `kill {holder.pid}` if it hangs" if holder.pid else "; end it if it hangs"


def _holder(handle: int) -> _Holder:
    """Find out who has a lock: what the system says, else what the holder wrote, if that process still runs."""
    pid, _, began = os.pread(handle, 100, 0).decode("ascii", "replace").strip().partition(" ")
    signed = int(pid) if pid.isdigit() and began and born(int(pid)) == began else 0
    found = lock_holder(handle) or signed
    since = time.strftime("%H:%M", time.localtime(os.fstat(handle).st_mtime)) if found == signed != 0 else ""
    return _Holder(found, since, bool(found) and state(found) == STOPPED, computed(found) if found else "")


def _open(path: Path) -> int:
    return os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)


def is_still(path: Path, handle: int) -> bool:
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
    """Write who has the lock, and when that process began; a full disk does not prevent holding it."""
    with suppress(OSError):
        os.ftruncate(handle, 0)
        os.pwrite(handle, f"{os.getpid()} {_began(os.getpid())}\n".encode("ascii", "replace"), 0)


_began = cache(born)


def _taken(handle: int) -> bool:
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True
