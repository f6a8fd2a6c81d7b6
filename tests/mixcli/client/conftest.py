"""A real server on loopback that sends given bytes, and the client of --endpoint that reads them."""

import contextlib
import socket
import threading
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from mixcli.client.endpoint import EndpointClient
from mixcli.host.protocol.messages import ChatBody

Serve = Callable[..., EndpointClient]


@pytest.fixture
def serve() -> Iterator[Serve]:
    """Start a server that answers every request with the same bytes, in the pieces that they come in."""
    with contextlib.ExitStack() as stack:

        def start(*pieces: bytes, head: str = "", status: str = "200 OK") -> EndpointClient:
            server = stack.enter_context(socket.create_server(("127.0.0.1", 0)))
            answer = (f"HTTP/1.1 {status}\r\n{head}Connection: close\r\n\r\n".encode(), *pieces)
            threading.Thread(target=_serve, args=(server, answer), daemon=True).start()
            return EndpointClient(f"http://127.0.0.1:{server.getsockname()[1]}/v1", None)

        yield start


def _serve(server: socket.socket, pieces: tuple[bytes, ...]) -> None:
    with contextlib.suppress(OSError):
        while True:
            peer, _ = server.accept()
            with peer, contextlib.suppress(OSError):
                request = b""
                while b"\r\n\r\n" not in request:
                    request += _received(peer)
                length = int(request.lower().split(b"content-length:")[1].split(b"\r\n")[0])
                while len(request.split(b"\r\n\r\n", 1)[1]) < length:
                    request += _received(peer)
                peer.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                for piece in pieces:
                    peer.sendall(piece)
                peer.shutdown(socket.SHUT_WR)
                while peer.recv(1 << 16):
                    pass


def _received(peer: socket.socket) -> bytes:
    """Return some bytes; ConnectionError where the client has left."""
    if piece := peer.recv(1 << 16):
        return piece
    raise ConnectionError("it has left")


def heard(client: EndpointClient, **body: Any) -> str:
    return "".join(delta.text for delta in client.chat(ChatBody(whole={"messages": [], **body})))
