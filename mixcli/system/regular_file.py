"""Read files that should be regular ones, and never wait: a FIFO of the right name would wait for its writer, and a device has no end."""

import errno
import os
import stat
from pathlib import Path
from typing import BinaryIO


def open_regular(path: Path, flags: int = 0) -> BinaryIO:
    """Open a regular file for reading; OSError for anything else. `flags` are more flags of open(2)."""
    handle = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC | flags)
    if not stat.S_ISREG(os.fstat(handle).st_mode):
        os.close(handle)
        raise OSError(errno.EINVAL, "not a regular file", os.fspath(path))
    return os.fdopen(handle, "rb")


def read_regular(path: Path, limit: int) -> bytes:
    """Return the first `limit` bytes of a regular file; OSError for anything else."""
    with open_regular(path) as file:
        return file.read(limit)


__all__ = ["open_regular", "read_regular"]
