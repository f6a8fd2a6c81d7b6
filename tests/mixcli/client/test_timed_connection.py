"""Servers of --endpoint that are not there, or that drip, stall and hang up at every stage: each wait has an end and a sentence."""

import contextlib
import socket
import threading
import time
from collections.abc import Callable, Iterator

import pytest

from mixcli.client import timed_connection
from mixcli.client.endpoint import EndpointClient
from mixcli.client.timed_connection import TimedConnection
from mixcli.errors import DoesNotFit, NotReachable
from mixcli.host.protocol.messages import ChatBody
from mixcli.request.prompt import ChatTurn
from tests.support.llama_workers import free_port
from tests.support.waiting import ends_within

Peer = Callable[[socket.socket], None]
Serve = Callable[[Peer], str]
STREAM = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n\r\n"
TEXT = b'data: {"choices": [{"delta": {"content": "Hel"}}]}\n\n'
ASK = ChatBody(whole={"messages": []})


@pytest.fixture
def serve() -> Iterator[Serve]:
    """Start a server that does something with each connection; gives HOST:PORT."""
    with contextlib.ExitStack() as stack:

        def start(talk: Peer) -> str:
            server = stack.enter_context(socket.create_server(("127.0.0.1", 0)))

            def one(peer: socket.socket) -> None:
                with peer, contextlib.suppress(OSError):
                    talk(peer)

            def run() -> None:
                with contextlib.suppress(OSError):
                    while True:
                        threading.Thread(target=one, args=(server.accept()[0],), daemon=True).start()

            threading.Thread(target=run, daemon=True).start()
            return f"127.0.0.1:{server.getsockname()[1]}"

        yield start


def after(*said: bytes, drip: bytes = b"") -> Peer:
    """Read a request, send what is said, then `drip` again and again, or nothing more."""

    def talk(peer: socket.socket) -> None:
        peer.recv(1 << 16)
        peer.sendall(b"".join(said))
        while True:
            if drip:
                peer.sendall(drip)
            time.sleep(0.02)

    return talk


@pytest.mark.parametrize(
    ("talk", "words"),
    [
        (after(), "it sent nothing for 1 s"),
        (after(b"HTTP/1.1 200 OK\r\nX: ", drip=b"x"), "headers were incomplete after 1 s"),
        (after(b"H", drip=b""), "headers were incomplete after 1 s"),
        (after(STREAM), "its response stalled for 1 s"),
        (after(STREAM, TEXT), "its response stalled for 1 s"),
        (after(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n", drip=b"0"), "its response stalled"),
        (after(b"HTTP/1.1 500 No\r\nContent-Length: 99\r\n\r\n", drip=b""), "its response stalled"),
        (after(b"HTTP/1.1 500 No\r\nContent-Length: 9999\r\n\r\n", drip=b"x"), "incomplete after 1 s"),
    ],
)
def test_a_server_that_drips_or_stalls_has_an_end(
    serve: Serve, monkeypatch: pytest.MonkeyPatch, talk: Peer, words: str
) -> None:
    monkeypatch.setattr(EndpointClient, "patience", 1.0)
    monkeypatch.setattr(timed_connection, "HEADERS", 1.0)
    monkeypatch.setattr("mixcli.client.refusal.MAX_SECONDS", 1.0)
    with ends_within(20), pytest.raises(NotReachable, match=f"timed out: .*{words}") as raised:
        list(EndpointClient(f"http://{serve(talk)}", None).chat(ASK))
    assert "check the server" in str(raised.value)


def test_an_answer_may_take_long_to_begin_and_not_to_go_on(
    serve: Serve, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("mixcli.client.endpoint.SILENCE", 1.0)
    with ends_within(), pytest.raises(NotReachable, match="its response stalled for 1 s"):
        list(EndpointClient(f"http://{serve(after(STREAM, TEXT))}", None).chat(ASK))


def test_models_are_not_waited_for_as_long_as_an_answer(
    serve: Serve, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("mixcli.client.endpoint.QUERY_SECONDS", 1.0)
    with pytest.raises(NotReachable, match="it sent nothing for 1 s"):
        EndpointClient(f"http://{serve(after())}", None).models()


def test_a_port_that_nobody_listens_at_cannot_be_connected_to() -> None:
    url = f"127.0.0.1:{free_port()}"
    for ask in (lambda client: client.models(), lambda client: client.complete(ASK)):
        with pytest.raises(NotReachable) as raised:
            ask(EndpointClient(f"http://{url}/v1", None))
        said = str(raised.value)
        assert (
            said == f"cannot connect to {url}: Connection refused; start the server there, or check the port"
        )


def test_a_server_that_accepts_nothing_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    """Its queue of connections is full, so the system answers none more."""
    monkeypatch.setattr(timed_connection, "CONNECT", 1.0)
    with contextlib.ExitStack() as stack:
        server = stack.enter_context(socket.socket())
        server.bind(("127.0.0.1", 0))
        server.listen(0)
        for _ in range(3):
            client = stack.enter_context(socket.socket())
            client.setblocking(False)
            client.connect_ex(server.getsockname())
        with pytest.raises(
            NotReachable, match=r"cannot connect to .*: it did not accept a connection within 1 s"
        ):
            EndpointClient(f"http://127.0.0.1:{server.getsockname()[1]}", None).models()


def test_tls_that_never_begins_or_is_none(serve: Serve, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(timed_connection, "CONNECT", 1.0)
    with pytest.raises(NotReachable, match="no TLS handshake within 1 s"):
        EndpointClient(f"https://{serve(after())}", "key").models()
    with pytest.raises(NotReachable, match=r"does not speak TLS as expected \([A-Z_]+\); check .* http://"):
        EndpointClient(f"https://{serve(after(b'HTTP/1.1 400 Bad Request'))}", "key").models()


def test_a_request_that_is_not_read_has_an_end(serve: Serve, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(timed_connection, "SEND", 1.0)
    client = EndpointClient(f"http://{serve(lambda _peer: time.sleep(5))}", None)
    with pytest.raises(NotReachable, match="it did not read the request for 1 s"):
        client.complete(ChatBody((ChatTurn("user", "x" * (24 << 20)),)))


def test_a_refusal_that_comes_before_the_request_was_read_is_heard(serve: Serve) -> None:
    def refuse(peer: socket.socket) -> None:
        peer.recv(1 << 10)
        peer.sendall(
            b'HTTP/1.1 413 Too Large\r\nContent-Length: 36\r\n\r\n{"error": {"message": "1 MB at most"}}'
        )

    client = EndpointClient(f"http://{serve(refuse)}", None)
    with pytest.raises(DoesNotFit, match="1 MB at most"):
        client.complete(ChatBody((ChatTurn("user", "x" * (24 << 20)),)))


def test_an_address_of_ipv6_keeps_its_colons() -> None:
    for tls, port in ((False, 80), (True, 443)):
        connection = TimedConnection("::1", None, 1.0, tls=tls)
        assert (connection.host, connection.port, connection.default_port) == ("::1", port, port)
