"""A file of the result while it is being written."""

import os
from pathlib import Path
from typing import Self

from quantize.file_layout import PlacedFile
from quantize.sources.input_file import pread_exactly
from quantize.write_journal import open_own


class PartFile:
    """An open .part file with its header in place; written at offsets by several threads."""

    def __init__(self, path: Path, file: PlacedFile) -> None:
        self._size = file.size
        self._fd = open_own(path)
        try:
            self.write(0, file.header)
        except BaseException:
            os.close(self._fd)
            raise

    def write(self, offset: int, data: bytes | memoryview) -> None:
        view = memoryview(data)
        while view:
            n = os.pwrite(self._fd, view, offset)
            view, offset = view[n:], offset + n

    def read(self, offset: int, n: int) -> bytes:
        """Read `n` bytes; fewer where the file ends before."""
        return pread_exactly(self._fd, offset, n)

    def flush(self) -> None:
        """Flush the file to the disk."""
        os.fsync(self._fd)

    def finish(self) -> None:
        """Set the file's exact size (it may end in padding) and flush it to the disk."""
        os.ftruncate(self._fd, self._size)
        os.fsync(self._fd)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        os.close(self._fd)


__all__ = ["PartFile"]
