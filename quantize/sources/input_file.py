"""Open input files: regular files only, without blocking, with a message for every failure.

A FIFO or a device of the right name would block the reader forever; a Git LFS pointer is a text of three lines where a model should be.
"""

import os
import stat
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

from quantize.errors import CorruptFile, MalformedFile, QuantizeError
from quantize.wording import counted

LFS_POINTER = b"version https://git-lfs"

_KINDS = (
    (stat.S_ISDIR, "a folder"),
    (stat.S_ISFIFO, "a pipe (FIFO)"),
    (stat.S_ISSOCK, "a socket"),
    (stat.S_ISCHR, "a device"),
    (stat.S_ISBLK, "a device"),
    (stat.S_ISLNK, "a symlink"),
)


def kind_of(mode: int) -> str | None:
    """Name what a file of this `st_mode` is, such as "a folder"; None for a regular file."""
    if stat.S_ISREG(mode):
        return None
    return next((words for is_kind, words in _KINDS if is_kind(mode)), "not a regular file")


@contextmanager
def opened(path: Path) -> Iterator[int]:
    """Open a regular file for reading and give its descriptor; QuantizeError for anything else, and never a wait."""
    try:
        # a FIFO would wait for its writer, a tape for its reel
        fd = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else error
        raise QuantizeError(f"{path} cannot be read: {reason or error}") from error
    try:
        if kind := kind_of(os.fstat(fd).st_mode):
            raise QuantizeError(f"{path} is {kind}; use a regular file")
        yield fd
    except OSError as error:
        raise QuantizeError(f"{path} cannot be read: {error.strerror or error}") from error
    finally:
        os.close(fd)


def pread_exactly(fd: int, offset: int, n: int) -> bytes:
    """Read `n` bytes at `offset`, in as many pieces as the file system gives them; fewer only at the end of the file."""
    first = os.pread(fd, n, offset)
    if len(first) == n or not first:
        return first
    data = bytearray(first)
    while len(data) < n and (piece := os.pread(fd, n - len(data), offset + len(data))):
        data += piece
    return bytes(data)


def read_file(path: Path, limit: int) -> bytes:
    """Read a whole file of at most `limit` bytes; CorruptFile for a larger one and for a Git LFS pointer."""
    with opened(path) as fd:
        size = os.fstat(fd).st_size
        if size > limit:
            raise MalformedFile(f"{path.name} is {size:,} bytes long; the limit for such a file is {limit:,}")
        data = pread_exactly(fd, 0, size)
    if len(data) < size:
        raise CorruptFile(
            f"{path.name} ended after {len(data):,} of {counted(size, 'byte')}; it changed during the read: rerun the command"
        )
    refuse_pointer(path.name, data)
    return data


def fingerprint_of(path: Path) -> bytes:
    """Return what stands for a file's bytes: where it is, its size, and when it last changed.

    The change time is part of it because, unlike the modification time, no program can set it back.
    """
    status = path.stat()
    parts = (path.resolve(), status.st_size, status.st_mtime_ns, status.st_ctime_ns)
    return "\0".join(map(str, ("", *parts))).encode("utf-8", "surrogateescape")


def states_of(paths: Iterable[Path]) -> tuple[tuple[Path, object], ...]:
    """Return the files, each with what changes when it is replaced or written to; None for one that is not there."""

    def state(path: Path) -> object:
        try:
            status = path.stat()
        except OSError:
            return None
        return status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns

    return tuple((path, state(path)) for path in paths)


def refuse_pointer(name: str, beginning: bytes) -> None:
    """Raise CorruptFile where a file is only a Git LFS pointer to the real one."""
    if beginning.startswith(LFS_POINTER):
        raise CorruptFile(
            f"{name} is a Git LFS pointer, not the file; run `git lfs pull` in its folder, or download the real file"
        )


__all__ = [
    "LFS_POINTER",
    "fingerprint_of",
    "kind_of",
    "opened",
    "pread_exactly",
    "read_file",
    "refuse_pointer",
    "states_of",
]
