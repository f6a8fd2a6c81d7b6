"""Decode server responses: a JSON body of bounded size, or a stream of server-sent events.

The format is https://html.spec.whatwg.org/multipage/server-sent-events.html. Tolerated beyond it: no blank line between events, JSON
lines without "data:", a whole JSON response where a stream was requested. Invalid JSON is an error that names the server.
"""

import codecs
import json
import time
from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, Protocol, Self

from mixcli.errors import MixcliError
from mixcli.system.json_parts import n_parts

if TYPE_CHECKING:
    from types import TracebackType

MAX_LINE = 1 << 24  # bytes of one line of a stream, and of one event
MAX_BODY = 1 << 26  # bytes of a whole response
MAX_PARTS = 1 << 23  # objects, lists and texts of a whole response
MAX_SECONDS = 600.0
PIECE = 1 << 16
MAX_LINES = 1 << 20  # of one event, or response, that comes line by line
MAX_READ = 4  # times the bytes that an event, or a response, may have: so much is read of one that comes line by line
DONE = b"[DONE]"
# Content-Encoding -> zlib's wbits; none of them was asked for, but some servers compress anyway
ENCODINGS = {"gzip": 47, "x-gzip": 47, "deflate": 47}


class Response(Protocol):
    """An HTTP response whose head has been read."""

    status: int
    reason: str

    def getheader(self, name: str, /) -> str | None:
        """Return the value of a header; None where there is none."""

    def raw_pieces(self) -> Iterator[bytes]:
        """Yield the body in pieces as they come, in the encoding that its head names."""

    def __enter__(self) -> Self: ...
    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: "TracebackType | None", /
    ) -> None: ...


def body_of(response: Response, limit: int = MAX_BODY, patience: float = MAX_SECONDS) -> bytes:
    """Return a whole body, unpacked. Raises MixcliError when it has more than `limit` bytes, unless that is less than MAX_BODY: then it is cut.

    TimeoutError when it takes more than `patience` seconds from its first byte on.
    """
    found: list[bytes] = []
    began = time.monotonic()
    n_bytes = 0
    for piece in pieces(response):
        found.append(piece)
        if time.monotonic() - began > patience:
            raise TimeoutError(f"its response was incomplete after {patience:.0f} s")
        n_bytes += len(piece)
        if n_bytes >= limit and limit < MAX_BODY:
            break
        if n_bytes > limit:
            raise MixcliError(f"the server's response is longer than {limit:,} bytes; truncated")
    return b"".join(found)


def pieces(response: Response) -> Iterator[bytes]:
    """Yield a body in pieces as they come, unpacked."""
    encoding = (response.getheader("Content-Encoding") or "identity").strip().lower()
    if encoding == "identity":
        yield from response.raw_pieces()
        return
    if encoding not in ENCODINGS:
        raise MixcliError(f"the server's response has the unsupported Content-Encoding {encoding[:40]}")
    import zlib  # a host does not compress

    unpack = zlib.decompressobj(ENCODINGS[encoding])
    try:
        for piece in response.raw_pieces():
            packed = piece
            while packed and not unpack.eof:
                yield unpack.decompress(packed, PIECE)
                packed = unpack.unconsumed_tail
    except zlib.error as error:
        raise MixcliError(f"the server's response is not valid {encoding}: {error}") from error


def lines(source: Iterable[bytes], limit: int = MAX_LINE) -> Iterator[bytes]:
    """Yield lines without their ends (LF, CRLF or CR) and without a BOM before the first. Raises MixcliError for one over `limit` bytes."""
    waiting: list[bytes] = []
    n_waiting = 0
    is_first, ended_with_cr = True, False
    for piece in source:
        if not piece:
            continue
        fresh = piece.removeprefix(b"\n") if ended_with_cr else piece
        ended_with_cr = piece.endswith(b"\r")
        for part in fresh.splitlines(keepends=True):
            line = part.rstrip(b"\r\n")
            waiting.append(line)
            n_waiting += len(line)
            if n_waiting > limit:
                raise MixcliError(
                    f"the server sent a line of more than {limit:,} bytes; the response was truncated"
                )
            if len(line) < len(part):
                whole = b"".join(waiting)
                yield whole.removeprefix(codecs.BOM_UTF8) if is_first else whole
                waiting, n_waiting, is_first = [], 0, False
    if waiting:
        yield b"".join(waiting)


class Events:
    """The JSON objects of a stream, as they come. `is_done` shows whether the stream said [DONE]."""

    def __init__(self, source: Iterable[bytes]) -> None:
        self._lines = lines(source)
        self.is_done = False
        self._name = ""  # of the event that is being read
        self._data = _Lines(MAX_LINE, f"the server sent an event of more than {MAX_LINE:,} bytes")
        # JSON without "data:", which may take several lines
        self._bare = _Lines(MAX_BODY, f"the server's response is longer than {MAX_BODY:,} bytes; truncated")

    def __iter__(self) -> Iterator[dict[str, object]]:
        for line in self._lines:
            yield from self._line(line)
            if self.is_done:
                return
        if (value := _json(self._bare.joined())) is not None:
            yield _object(value, b"")
        yield from self._end(at_end=True)

    def _line(self, line: bytes) -> Iterator[dict[str, object]]:
        name, _, value = line.partition(b":")
        if self._bare or line.startswith(b"{"):
            yield from self._bare_line(line)
        elif not line:
            yield from self._end()
        elif name == b"event":
            self._name = value.strip().decode("utf-8", "replace")
        elif name == b"data":
            yield from self._data_line(value.removeprefix(b" "))

    def _data_line(self, value: bytes) -> Iterator[dict[str, object]]:
        if self._data and self._data.value() is not None:  # no blank line between two events
            yield from self._end()
        if not self._data and value.strip() == DONE:
            self.is_done = True
            return
        self._data.add(value)
        if (
            not self._name
            and len(self._data) == 1
            and value.rstrip().endswith(b"}")
            and self._data.value() is not None
        ):
            yield from self._end()

    def _bare_line(self, line: bytes) -> Iterator[dict[str, object]]:
        self._bare.add(line)
        if line.startswith(b"}") or (len(self._bare) == 1 and line.rstrip().endswith(b"}")):
            value = self._bare.value()
            if value is not None:
                self._bare.clear()
                yield _object(value, b"")

    def _end(self, *, at_end: bool = False) -> Iterator[dict[str, object]]:
        """Yield the event that ends here; at the end of all an unfinished one counts as cut off, and is left out."""
        raw, name = self._data.joined(), self._name
        self._data.clear()
        self._name = ""
        if not raw.strip():
            return
        value = _json(raw)
        if name == "error":
            yield value if isinstance(value, dict) and "error" in value else {"error": value or _shown(raw)}
        elif value is not None or not at_end:
            yield _object(value, raw)


class _Lines:
    """The lines of a JSON text as they come, of `limit` bytes at most; MixcliError with `otherwise` where it is longer."""

    def __init__(self, limit: int, otherwise: str) -> None:
        self._limit, self._otherwise = limit, otherwise
        self.clear()

    def __len__(self) -> int:
        return len(self._lines)

    def clear(self) -> None:
        """Begin another text."""
        self._lines: list[bytes] = []
        self._n_bytes = self._n_read = 0

    def add(self, line: bytes) -> None:
        """Take a line."""
        self._lines.append(line)
        self._n_bytes += len(line) + 1
        if self._n_bytes > self._limit:
            raise MixcliError(self._otherwise)
        if len(self._lines) > MAX_LINES:
            raise MixcliError(f"the server's response has more than {MAX_LINES:,} lines; truncated")

    def joined(self) -> bytes:
        return b"\n".join(self._lines)

    def value(self) -> object:
        """Return what the text means; None where it is not JSON yet, or was looked at too often: each look reads all of it."""
        self._n_read += self._n_bytes
        return _json(self.joined()) if self._n_read <= MAX_READ * self._limit else None


def parsed(raw: bytes) -> object:
    """Return the value of JSON text; ValueError or RecursionError where it is not JSON, MixcliError where it would fill the memory."""
    if (n := n_parts(raw)) > MAX_PARTS:
        raise MixcliError(
            f"the server's response has {n:,} objects, lists and texts; more than {MAX_PARTS:,} are not read"
        )
    value: object = json.loads(raw.decode("utf-8-sig", "replace"))
    return value


def _json(raw: bytes) -> object:
    """Return the value of JSON text, None if it is not JSON."""
    try:
        return parsed(raw)
    except (ValueError, RecursionError):
        return None


def _object(value: object, raw: bytes) -> dict[str, object]:
    if isinstance(value, dict):
        return value
    raise MixcliError(f"the server sent an event that is not a JSON object: {_shown(raw)}")


def _shown(raw: bytes) -> str:
    return " ".join(raw.decode("utf-8", "replace").split())[:200]


__all__ = ["MAX_BODY", "MAX_LINE", "Events", "Response", "body_of", "lines", "parsed", "pieces"]
