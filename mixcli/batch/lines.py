"""Read lines of any input in constant memory; lines that are too long or not text become faults."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Protocol

from mixcli.errors import UsageError

MAX_LINE = 1 << 24  # bytes
ENDLESS = 1 << 32  # bytes of one line: what is longer has no end
PIECE = 1 << 16
_BOM = b"\xef\xbb\xbf"


class Readable(Protocol):
    """What bytes come from; `read1` gives those that are there, and nothing at the end."""

    def read1(self, size: int = ..., /) -> bytes: ...


@dataclass(frozen=True)
class InputLine:
    """A line without its end, numbered from 1; `fault` says why there is no text."""

    number: int
    text: str
    fault: str = ""


def read_lines(stream: Readable, limit: int = MAX_LINE) -> Iterator[InputLine]:
    """Yield lines (LF, CRLF or CR, UTF-8) as they come; memory is bounded by `limit` bytes.

    A BOM may begin any line: where files were joined, each brings its own.
    """
    for number, (raw, n_bytes) in enumerate(_raw_lines(stream, limit), 1):
        if n_bytes > limit:
            yield InputLine(number, "", f"the line is {n_bytes:,} bytes long; the limit is {limit:,}")
        else:
            yield _line(number, raw.removeprefix(_BOM))


def _raw_lines(stream: Readable, limit: int) -> Iterator[tuple[bytes, int]]:
    """Yield the bytes of each line and how many they are; of a line over the limit there are none."""
    waiting: list[bytes] = []
    n_bytes = 0
    ended_with_cr = False
    while piece := stream.read1(PIECE):
        if ended_with_cr:  # its LF, which belongs to a line that is given already
            piece = piece.removeprefix(b"\n")
        ended_with_cr = piece.endswith(b"\r") if piece else False
        for part in piece.splitlines(keepends=True):
            line = part.rstrip(b"\r\n")
            n_bytes += len(line)
            if n_bytes <= limit:
                waiting.append(line)
            else:
                waiting = []
                if n_bytes > ENDLESS:
                    raise UsageError(
                        f"a line of the input has no end within {n_bytes:,} bytes; the limit is {limit:,}"
                    )
            if len(line) < len(part):
                yield b"".join(waiting), n_bytes
                waiting, n_bytes = [], 0
    if n_bytes:
        yield b"".join(waiting), n_bytes


def _line(number: int, raw: bytes) -> InputLine:
    try:
        text = raw.decode("utf-8")
    except UnicodeDecodeError as error:
        return InputLine(
            number,
            "",
            f"byte {error.start + 1} of the line is not UTF-8 text (0x{raw[error.start]:02X}); "
            "for a Latin-1 file: iconv -f latin1 -t utf-8",
        )
    if "\0" in text:
        return InputLine(number, "", f"character {text.index(chr(0)) + 1} of the line is a NUL")
    return InputLine(number, text)
