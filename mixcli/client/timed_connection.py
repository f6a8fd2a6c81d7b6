"""HTTP connections with a deadline for each stage: connect, request, headers, and each piece of the response.

A socket's own timeout counts from byte to byte, so a server that sends one byte now and then could be waited for endlessly. Here each stage
has a deadline of its own, whatever comes meanwhile.
"""

import contextlib
import http.client
import io
import socket
import ssl
import time
from collections.abc import Iterator
from typing import Any

from mixcli.client.events import PIECE

CONNECT = 10.0  # seconds for a connection, whichever of a server's addresses accepts it, and as many for the TLS handshake
MIN_CONNECT_SECONDS = 3.0  # seconds for one address of several
SEND = 60.0  # seconds in which a server must take a piece of the request
HEADERS = 30.0  # seconds for the response's headers, from their first byte on
# a peer that has vanished is noticed after about IDLE + PROBES * INTERVAL seconds; one that computes is not disturbed
IDLE, INTERVAL, PROBES = 30, 10, 4


class TimedConnection(http.client.HTTPConnection):
    """HTTP, or HTTPS, to a host and port; TimeoutError says which wait came to its end, and OSError what the system or TLS says.

    `patience` is seconds for the response's first byte, and for each piece of its body: a long prompt is read meanwhile.
    """

    def __init__(self, host: str, port: int | None, patience: float, *, tls: bool) -> None:
        super().__init__(host, port or (443 if tls else 80))
        self.default_port = 443 if tls else 80
        self._tls, self._patience = tls, patience
        self.response_class = self._response  # type: ignore[assignment]

    def connect(self) -> None:
        """Connect, with the TLS handshake."""
        self.sock = _connected(self.host, self.port)
        try:
            self.sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            _keep_alive(self.sock)
            self.sock.settimeout(CONNECT)
            if self._tls:
                self._shake_hands()
        except BaseException:
            self.close()
            raise
        self.sock.settimeout(SEND)

    def send(self, data: Any) -> None:
        """Send a piece of the request."""
        try:
            super().send(data)
        except TimeoutError as error:
            if error.errno is not None:
                raise
            raise TimeoutError(f"it did not read the request for {SEND:.0f} s") from None

    def _shake_hands(self) -> None:
        context = ssl.create_default_context()
        try:
            self.sock = context.wrap_socket(self.sock, server_hostname=self.host)
        except TimeoutError:
            raise TimeoutError(f"no TLS handshake within {CONNECT:.0f} s") from None

    def _response(self, sock: socket.socket, *args: Any, **kwargs: Any) -> "TimedResponse":
        return TimedResponse(sock, self._patience, *args, **kwargs)


class TimedResponse(http.client.HTTPResponse):
    """A response whose headers and pieces come in time; TimeoutError otherwise. `patience` is seconds for each piece, and may change."""

    def __init__(self, sock: socket.socket, patience: float, *args: Any, **kwargs: Any) -> None:
        super().__init__(sock, *args, **kwargs)
        self.patience = patience
        self._reader = _Reader(self.fp.detach(), sock)
        self.fp = io.BufferedReader(self._reader)
        self._reader.allow(patience, f"it sent nothing for {patience:.0f} s")

    def begin(self) -> None:
        """Read the headers."""
        try:
            self._reader.then = (HEADERS, f"its response headers were incomplete after {HEADERS:.0f} s")
            super().begin()
        finally:
            self._reader.then = None

    def read1(self, n: int = -1) -> bytes:
        """Return the next piece of the body."""
        self._reader.allow(self.patience, f"its response stalled for {self.patience:.0f} s")
        return super().read1(n)

    def raw_pieces(self) -> Iterator[bytes]:
        """Yield the body in pieces as they come."""
        while piece := self.read1(PIECE):
            yield piece


class _Reader(io.RawIOBase):
    """The bytes of a socket up to a deadline; `then` is the one that the first bytes set."""

    then: tuple[float, str] | None = None

    def __init__(self, raw: io.RawIOBase, sock: socket.socket) -> None:
        self._raw, self._socket = raw, sock

    def allow(self, seconds: float, otherwise: str) -> None:
        """Set the deadline, and what is said when it has passed."""
        self._deadline, self._otherwise = time.monotonic() + seconds, otherwise

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any, /) -> int | None:
        left = self._deadline - time.monotonic()
        try:
            if left <= 0:
                raise TimeoutError
            self._socket.settimeout(left)
            n = self._raw.readinto(buffer)
        except TimeoutError:
            raise TimeoutError(self._otherwise) from None
        if n and self.then:
            self.allow(*self.then)
            self.then = None
        return n

    def close(self) -> None:
        self._raw.close()
        super().close()


def _connected(host: str, port: int) -> socket.socket:
    """Return a socket that is connected to the first address that accepts one; the last one's OSError where none does."""
    addresses = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    deadline = time.monotonic() + CONNECT
    failure: OSError = TimeoutError(f"it did not accept a connection within {CONNECT:.0f} s")
    for place, (family, kind, protocol, _, address) in enumerate(addresses):
        left = deadline - time.monotonic()
        if left <= 0:
            break
        sock = socket.socket(family, kind, protocol)
        try:
            sock.settimeout(min(left, max(left / (len(addresses) - place), MIN_CONNECT_SECONDS)))
            sock.connect(address)
        except OSError as error:
            sock.close()
            if not isinstance(error, TimeoutError):
                failure = error
        else:
            return sock
    raise failure


def _keep_alive(sock: socket.socket) -> None:
    """Let the system look whether the peer is still there."""
    options = {"TCP_KEEPIDLE": IDLE, "TCP_KEEPALIVE": IDLE, "TCP_KEEPINTVL": INTERVAL, "TCP_KEEPCNT": PROBES}
    with contextlib.suppress(OSError):
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        for name, value in options.items():
            if hasattr(socket, name):
                sock.setsockopt(socket.IPPROTO_TCP, getattr(socket, name), value)


__all__ = ["HEADERS", "TimedConnection", "TimedResponse"]
