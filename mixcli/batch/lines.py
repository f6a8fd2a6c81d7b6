"""Lines of any input in constant memory: what is too long or no text becomes a fault, and the rest goes on."""

import codecs
from collections.abc import Iterator
from dataclasses import dataclass
from typing import BinaryIO

from mixcli.errors import UsageError

MAX_LINE = 1 << 24  # bytes
_CHUNK = 1 << 16
_WIDE = (codecs.BOM_UTF32_LE, codecs.BOM_UTF32_BE, codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)


@dataclass(frozen=True)
class Line:
    """A line without its end, numbered from 1; `fault` says why there is no text."""

    number: int
    text: str
    fault: str = ""


def read_lines(stream: BinaryIO, limit: int = MAX_LINE) -> Iterator[Line]:
    """Yield lines (LF or CRLF, UTF-8 with or without BOM) as they come; memory is bounded by `limit` bytes."""
    number = 0
    while raw := stream.readline(limit + 1):
        number += 1
        if number == 1:
            raw = _without_mark(raw)
        if len(raw) > limit and not raw.endswith(b"\n"):
            n_bytes = len(raw) + _skipped(stream)
            yield Line(number, "", f"the line has {n_bytes:,} bytes; {limit:,} is the limit")
            continue
        yield _line(number, raw.removesuffix(b"\n").removesuffix(b"\r"))


def _line(number: int, raw: bytes) -> Line:
    try:
        text = raw.decode("utf-8")
    except UnicodeDecodeError as error:
        return Line(number, "", f"byte {error.start + 1} of the line is no UTF-8 text")
    if "\0" in text:
        return Line(number, "", f"character {text.index(chr(0)) + 1} of the line is a NUL")
    return Line(number, text)


def _without_mark(raw: bytes) -> bytes:
    if raw.startswith(_WIDE):
        raise UsageError("the input is UTF-16 or UTF-32; make it UTF-8 first: iconv -f UTF-16 -t UTF-8")
    return raw.removeprefix(codecs.BOM_UTF8)


def _skipped(stream: BinaryIO) -> int:
    """Read on to the end of a line; gives how many bytes it still had."""
    n_bytes = 0
    while chunk := stream.readline(_CHUNK):
        if chunk.endswith(b"\n"):
            return n_bytes + len(chunk) - 1
        n_bytes += len(chunk)
    return n_bytes
