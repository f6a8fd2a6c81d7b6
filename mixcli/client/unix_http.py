"""HTTP/1.1 over a unix socket, as a host of this machine speaks it: one request for each connection.

The standard library's client takes a fifth of the time of a short command, because it imports TLS and e-mail. It serves other servers (endpoint.py).
"""

import contextlib
import socket
import time
from collections.abc import Iterator, Mapping
from io import BufferedReader
from pathlib import Path
from typing import Self

CONNECT = 2.0  # seconds for a connection
PIECE = 1 << 16  # bytes that are sent or read at a time: the timeout counts for each
MAX_LINE = 1 << 16  # bytes of a line of a head, or before a chunk
MAX_HEADERS = 100


class BrokenResponse(ValueError):
    """What came is not HTTP, or ended in the middle."""


class UnixResponse:
    """A response, and the connection that it comes from; the body is read as it comes.

    Raises ConnectionResetError where no byte comes, BrokenResponse for a torn or malformed one, TimeoutError as the connection does.
    """

    def __init__(self, connection: socket.socket) -> None:
        self._connection = connection
        self._file = connection.makefile("rb")
        try:
            self.status, self.reason = _status_in(self._file.readline(MAX_LINE))
            self._headers = dict(_headers_in(self._file))
        except BaseException:
            self.close()
            raise

    def getheader(self, name: str) -> str | None:
        """Return the value of a header; None where there is none."""
        return self._headers.get(name.lower())

    def raw_pieces(self) -> Iterator[bytes]:
        """Yield the body in pieces as they come: in chunks, of a known length, or up to the end of the connection."""
        length = self._headers.get("content-length")
        if self._headers.get("transfer-encoding", "").lower() == "chunked":
            while n_bytes := _number(_line(self._file).partition(b";")[0], 16):
                yield from _exactly(self._file, n_bytes)
                if _line(self._file):
                    raise BrokenResponse("a chunk is longer than its header declares")
            _headers_in(self._file)  # trailers
        elif length is not None:
            yield from _exactly(self._file, _number(length.encode(), 10))
        else:
            while piece := self._file.read1(PIECE):
                yield piece

    def close(self) -> None:
        """Close the connection, which stops a host that is still responding."""
        self._file.close()
        self._connection.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def _status_in(line: bytes) -> tuple[int, str]:
    """Return the status and the reason of a response's first line."""
    if not line:
        raise ConnectionResetError("the connection ended before a response")
    version, _, rest = line.partition(b" ")
    status, _, reason = rest.partition(b" ")
    if not version.startswith(b"HTTP/1.") or not line.endswith(b"\n"):
        raise BrokenResponse(f"not HTTP: {line[:80]!r}")
    return _number(status, 10), reason.decode("latin-1").strip()


def _headers_in(file: BufferedReader) -> list[tuple[str, str]]:
    """Read headers up to the empty line after them; names are in lower case."""
    found: list[tuple[str, str]] = []
    while line := _line(file):
        name, colon, value = line.decode("latin-1").partition(":")
        if not colon or len(found) == MAX_HEADERS:
            raise BrokenResponse(f"not a header: {line[:80]!r}")
        found.append((name.lower(), value.strip()))
    return found


def _line(file: BufferedReader) -> bytes:
    line = file.readline(MAX_LINE)
    if not line.endswith(b"\n"):
        raise BrokenResponse("the connection ended in the middle of a line, or the line is too long")
    return line.rstrip(b"\r\n")


def _exactly(file: BufferedReader, n_bytes: int) -> Iterator[bytes]:
    """Yield so many bytes, in pieces as they come."""
    while n_bytes:
        piece = file.read1(min(n_bytes, PIECE))
        if not piece:
            raise BrokenResponse("the connection ended in the middle of a response")
        n_bytes -= len(piece)
        yield piece


def _number(digits: bytes, base: int) -> int:
    """Return a number of digits and nothing else: int() alone would take a sign and underscores."""
    digits = digits.strip()
    try:
        return int(digits if digits.isalnum() else b"", base)
    except ValueError:
        raise BrokenResponse(f"not a number: {digits[:80]!r}") from None


def connect(path: Path, timeout: float) -> socket.socket:
    """Connect to a socket; later waits end after `timeout` seconds without a byte. Raises OSError, TimeoutError when no connection is accepted."""
    deadline = time.monotonic() + CONNECT
    while True:
        connection = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            connection.settimeout(CONNECT)
            connection.connect(str(path))
        except BlockingIOError:  # so many wait to be accepted that one more has no room
            connection.close()
            if time.monotonic() > deadline:
                raise TimeoutError(f"{path} does not accept connections") from None
            time.sleep(0.02)
        except BaseException:
            connection.close()
            raise
        else:
            connection.settimeout(timeout)
            return connection


def send(
    connection: socket.socket, method: str, target: str, headers: Mapping[str, str], body: bytes
) -> None:
    """Send a request; the connection is closed after its response."""
    said = {"Host": "localhost", **headers, "Connection": "close", "Content-Length": str(len(body))}
    lines = (f"{method} {target} HTTP/1.1", *(f"{name}: {value}" for name, value in said.items()), "", "")
    data = "\r\n".join(lines).encode("latin-1") + body
    with contextlib.suppress(BrokenPipeError, ConnectionResetError):  # it may have refused before it read all
        for begin in range(0, len(data), PIECE):
            connection.sendall(data[begin : begin + PIECE])


__all__ = ["CONNECT", "BrokenResponse", "UnixResponse", "connect", "send"]
