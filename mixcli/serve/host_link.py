"""HTTP/1.1 from the port to a host over its unix socket, in the event loop: one connection for each request.

It does what a host needs and no more. A general-purpose client takes 2 ms of processor time for each request and most of the cost of each token, beside a model that needs all cores.
"""

import asyncio
import socket
from collections.abc import AsyncGenerator, Sequence
from pathlib import Path

from mixcli.serve.refusal import Header

PAUSE = 0.02  # seconds until a connection is tried again where too many wait to be accepted
PIECE = 1 << 16  # bytes of a head, and of a piece of a body
SIZE = 1 << 10  # bytes in which the size of a chunk must have come


class HostGone(Exception):
    """The host is not there, or ended before its answer did."""


class Chunks:
    """A chunked body as its bytes come. What has come of it is forwarded in one piece: each piece costs the port as much as the events in it."""

    def __init__(self) -> None:
        self.are_complete = False
        self._held = bytearray()  # the beginning of a chunk

    def add(self, data: bytes) -> bytes:
        """Return the whole chunks that end in `data`, joined; ValueError where the bytes are malformed."""
        self._held += data
        found, at = [], 0
        while not self.are_complete and (end := self._held.find(b"\r\n", at)) >= 0:
            n_bytes = int(self._held[at:end].partition(b";")[0], 16)
            if n_bytes < 0:
                raise ValueError("a chunk of negative size")
            begin, after = end + 2, end + 2 + n_bytes + 2
            if n_bytes and len(self._held) < after:
                break
            found.append(bytes(self._held[begin : begin + n_bytes]))
            at, self.are_complete = after, not n_bytes
        else:
            if not self.are_complete and len(self._held) - at > SIZE:
                raise ValueError("a chunk without a size")
        del self._held[:at]
        return b"".join(found)


class HostResponse:
    """A response whose head has come; the body is read as it comes. Closing it stops a host that still answers."""

    def __init__(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, head: bytes, *, has_body: bool
    ) -> None:
        self._reader, self._writer, self._has_body = reader, writer, has_body
        first, *lines = head[: -len(b"\r\n\r\n")].split(b"\r\n")
        self.status = int(first.split(b" ", 2)[1])
        self.headers: list[Header] = []
        for line in lines:
            name, _, value = line.partition(b":")
            self.headers.append((name.lower(), value.strip()))

    async def pieces(self) -> AsyncGenerator[bytes]:
        """Yield the body in pieces as they come; HostGone where it ends too early. One without a length ends with the connection."""
        headers = dict(self.headers)
        if not self._has_body or self.status in (204, 304):
            return
        try:
            if headers.get(b"transfer-encoding") == b"chunked":
                chunks = Chunks()
                while not chunks.are_complete:
                    data = await self._reader.read(PIECE)
                    if not data:
                        raise HostGone("the answer is incomplete")
                    if whole := chunks.add(data):
                        yield whole
            elif b"content-length" not in headers:
                while piece := await self._reader.read(PIECE):
                    yield piece
            else:
                left = int(headers[b"content-length"])
                while left:
                    piece = await self._reader.read(min(left, PIECE))
                    if not piece:
                        raise HostGone("the answer is incomplete")
                    left -= len(piece)
                    yield piece
        except (OSError, EOFError, ValueError, asyncio.LimitOverrunError) as error:
            raise HostGone("the answer is incomplete") from error

    async def aread(self) -> bytes:
        """Return the whole body."""
        return b"".join([piece async for piece in self.pieces()])

    async def aclose(self) -> None:
        """Close the connection at once."""
        self._writer.transport.abort()


class HostLink:
    """Sends requests to the host that listens on a socket."""

    def __init__(self, path: Path) -> None:
        self._path = path

    async def send(
        self, method: str, target: str, headers: Sequence[Header] = (), body: bytes = b""
    ) -> HostResponse:
        """Send a request, and return the response when its head has come, however long that takes; HostGone where the host ends before."""
        said = [
            (b"host", b"host"),
            (b"connection", b"close"),
            *headers,
            (b"content-length", b"%d" % len(body)),
        ]
        lines = [f"{method} {target} HTTP/1.1".encode(), *(b"%b: %b" % one for one in said), b"", body]
        try:
            reader, writer = await self._connected()
            try:
                writer.write(b"\r\n".join(lines))
                head = await reader.readuntil(b"\r\n\r\n")
                return HostResponse(reader, writer, head, has_body=method != "HEAD")
            except BaseException:
                writer.transport.abort()
                raise
        except (OSError, EOFError, ValueError, IndexError, asyncio.LimitOverrunError) as error:
            raise HostGone(str(error)) from error

    async def get(self, target: str, seconds: float) -> bytes:
        """Return the body of a GET; HostGone, or TimeoutError where it does not come in time."""
        async with asyncio.timeout(seconds):
            response = await self.send("GET", target)
            try:
                return await response.aread()
            finally:
                await response.aclose()

    async def _connected(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        """Connect, as soon as there is room among those that wait to be accepted: a host that hangs is alive, and the caller's time ends the wait."""
        connection = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            connection.setblocking(False)
            while True:
                try:
                    connection.connect(str(self._path))  # a unix socket connects at once or not at all
                    return await asyncio.open_unix_connection(sock=connection, limit=PIECE)
                except BlockingIOError:  # so many wait to be accepted that one more has no room
                    await asyncio.sleep(PAUSE)
        except BaseException:
            connection.close()
            raise
