"""The journal beside the .part files: which slabs a killed write has finished.

The first line is JSON that says what is being written; each further line is one finished slab, "<number> <crc32 of its bytes>" in
hex. A line is written after its bytes, so what the journal names exists unless the machine itself went down, and the
checksum tells. The open journal is also the lock: two processes never write the same result.
"""

import errno
import fcntl
import json
import os
import re
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Self

from quantize.errors import BadTarget, InUse
from quantize.sources.input_file import kind_of, pread_exactly

_LINE = 18  # "%08x %08x\n"
_ENTRY = re.compile(rb"[0-9a-f]{8} [0-9a-f]{8}\n")
_NO_LOCKS = {errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP, errno.ENOTSUP, errno.EINVAL, errno.EIO}
_MAX_SIZE = 1 << 26  # bytes, enough for trillions of weights


class WriteJournal:
    """The journal of one result, opened and locked for this process.

    `identity` stands for source, options and layout; a journal with another one is started over, and the .part files that it
    names are removed. `done` maps finished slab numbers to their crc32.
    """

    def __init__(self, path: Path, identity: str, parts: tuple[Path, ...]) -> None:
        self.path = path
        self.done: dict[int, int] = {}
        self.started_over = False
        is_new = not os.path.lexists(path)
        self._fd = _open_locked(path)
        try:
            is_new = is_new and not os.fstat(self._fd).st_size  # else another process has made it meanwhile
            if is_new and (strange := next(filter(os.path.lexists, parts), None)):
                self.remove()
                raise BadTarget(
                    f"{strange} was not left by an interrupted run, and a file of that name is needed; remove it, or choose another output name"
                )
            self._read(identity, parts)
        except BaseException:
            os.close(self._fd)
            raise

    def _read(self, identity: str, parts: tuple[Path, ...]) -> None:
        head, _, lines = pread_exactly(self._fd, 0, _MAX_SIZE).partition(b"\n")
        old_identity, old_parts = _parse_head(head)
        if old_identity != identity:
            self.started_over = bool(head)
            for name in {*old_parts, *(part.name for part in parts)}:
                _remove(self.path.parent / name)
            os.ftruncate(self._fd, 0)
            start = json.dumps({"identity": identity, "parts": [part.name for part in parts]}) + "\n"
            self._write(start.encode())
            return
        for position in range(0, len(lines) - _LINE + 1, _LINE):
            number, _, checksum = lines[position : position + _LINE].partition(b" ")
            if not _ENTRY.fullmatch(lines, position, position + _LINE):
                lines = lines[:position]
                break
            self.done[int(number, 16)] = int(checksum, 16)
        # A line that was cut off by a kill must not be the beginning of the next one.
        os.ftruncate(self._fd, len(head) + 1 + len(lines) // _LINE * _LINE)

    def add(self, number: int, checksum: int) -> None:
        """Record that a slab's bytes are written."""
        self._write(b"%08x %08x\n" % (number, checksum))

    def _write(self, data: bytes) -> None:
        while data:  # a file system may take less than it is given
            data = data[os.write(self._fd, data) :]

    def flush(self) -> None:
        """Flush the journal to the disk."""
        os.fsync(self._fd)

    def forget(self, numbers: set[int]) -> None:
        """Drop slabs whose bytes turned out to be wrong."""
        for number in numbers:
            del self.done[number]
        head = pread_exactly(self._fd, 0, _MAX_SIZE).partition(b"\n")[0]
        os.ftruncate(self._fd, len(head) + 1)
        for number, checksum in self.done.items():
            self.add(number, checksum)

    def remove(self) -> None:
        """Delete the journal: its result is published."""
        self.path.unlink(missing_ok=True)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        os.close(self._fd)


def _remove(path: Path) -> None:
    """Remove what an earlier run left; BadTarget for something that none can have left."""
    if os.path.lexists(path):
        kind = kind_of(path.lstat().st_mode)
        if kind and not path.is_symlink():
            raise BadTarget(f"{path} is {kind}, and a file of that name is needed; remove it")
        path.unlink(missing_ok=True)


def open_own(path: Path, flags: int = 0) -> int:
    """Open a regular file of an unfinished result, made where it is not there; BadTarget where its name is taken by something else."""
    try:
        fd = os.open(
            path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC | flags, 0o644
        )
    except OSError as error:
        kind = kind_of(path.lstat().st_mode) if os.path.lexists(path) else None
        if kind is None:
            raise
        raise BadTarget(f"{path} is {kind}, and a file of that name is needed; remove it") from error
    if kind := kind_of(os.fstat(fd).st_mode):
        os.close(fd)
        raise BadTarget(f"{path} is {kind}, and a file of that name is needed; remove it")
    return fd


def _open_locked(path: Path) -> int:
    while True:
        fd = open_own(path, os.O_APPEND)
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(fd)
            raise InUse(f"{path.name} is in use by another process; wait for it") from None
        except OSError as error:  # NFS without its lock daemon, FUSE
            if error.errno not in _NO_LOCKS:
                os.close(fd)
                raise
        with suppress(FileNotFoundError):
            if os.path.samestat(os.fstat(fd), os.lstat(path)):
                return fd
        os.close(fd)  # the lock's holder has just published and removed this journal


def _parse_head(line: bytes) -> tuple[str, list[str]]:
    """Read a journal's first line; only plain names of .part files are taken from it."""
    try:
        head = json.loads(line)
        names = [str(name) for name in head["parts"]]
        return str(head["identity"]), [name for name in names if name.endswith(".part") and "/" not in name]
    except (ValueError, TypeError, KeyError, RecursionError):
        return "", []


__all__ = ["WriteJournal", "open_own"]
