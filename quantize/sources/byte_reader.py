"""Read bytes at an offset from a local or remote file, with a bounds-checked cursor."""

import os
import struct
from typing import Any, Protocol

from quantize.errors import CorruptFile
from quantize.sources.input_file import pread_exactly
from quantize.sources.lazy_array import U64
from quantize.wording import counted

MAX_STRING = 1 << 26
MAX_HEADER = 1 << 27  # bytes; a vocabulary of 262,144 tokens with its merges takes about 16 MB
_FIRST_READ = 1 << 20


class ByteReader(Protocol):
    """Bytes of a known size that can be read at any offset."""

    @property
    def size(self) -> int:
        """Return the number of bytes."""

    def read_at(self, offset: int, n: int) -> bytes:
        """Return exactly bytes [offset, offset + n); called only inside [0, size)."""


class FileReader:
    """A file as ByteReader."""

    def __init__(self, fd: int) -> None:
        self._fd = fd
        self.size = os.fstat(fd).st_size

    def read_at(self, offset: int, n: int) -> bytes:
        return pread_exactly(self._fd, offset, n)


class Cursor:
    """A position in the header and the bytes read so far; grows its window as parsing goes on."""

    def __init__(self, reader: ByteReader, name: str) -> None:
        self.name = name
        self.size = reader.size
        self.position = 0
        self.data = bytearray()
        self._reader = reader
        self.reach(min(_FIRST_READ, self.size))

    def reach(self, end: int) -> None:
        """Have bytes [0, end) at hand, or say that the file ends before."""
        if end <= len(self.data):
            return
        if end > self.size:
            raise CorruptFile(
                f"{self.name} ends inside its header: it is {counted(self.size, 'byte')} long and the next field needs {end:,}; "
                "the download is incomplete: download it again"
            )
        if end > MAX_HEADER:
            raise CorruptFile(
                f"{self.name} declares a header of more than {MAX_HEADER:,} bytes; it is damaged or malicious"
            )
        start = len(self.data)
        stop = min(self.size, max(end, 2 * start))
        self.data += self._reader.read_at(start, stop - start)
        if len(self.data) < end:
            raise CorruptFile(
                f"{self.name} ended after {len(self.data):,} of {end:,} bytes; it changed during the read: rerun the command"
            )

    def take(self, n: int) -> bytes:
        start = self.position
        self.reach(start + n)
        self.position += n
        return bytes(self.data[start : self.position])

    def number(self, layout: struct.Struct) -> Any:
        start = self.position
        self.position += layout.size
        self.reach(self.position)
        return layout.unpack_from(self.data, start)[0]

    def string(self, what: str, limit: int) -> str:
        length = self.number(U64)
        if length > limit:
            raise CorruptFile(
                f"{self.name}: {what} declares {length:,} bytes; the limit is {limit:,}; the file is damaged"
            )
        return self.take(length).decode("utf-8", "surrogateescape")

    def skip_strings(self, count: int, what: str) -> None:
        unpack, data, position = U64.unpack_from, self.data, self.position
        for _ in range(count):
            if position + 8 > len(data):
                self.reach(position + 8)
            length = unpack(data, position)[0]
            if length > MAX_STRING:
                raise CorruptFile(
                    f"{self.name}: a string in {what} declares {length:,} bytes; the file is damaged"
                )
            position += 8 + length
        self.reach(position)
        self.position = position


__all__ = ["MAX_STRING", "ByteReader", "Cursor", "FileReader"]
