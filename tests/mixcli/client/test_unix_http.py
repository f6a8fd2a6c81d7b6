"""HTTP over a unix socket: every way to end a body, answers that are torn or malformed, and a host that refuses before it has read all."""

import contextlib
import os
import resource
import socket
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from mixcli.client.events import body_of
from mixcli.client.openai import HostClient
from mixcli.client.unix_http import MAX_HEADERS, MAX_LINE, BrokenResponse, UnixResponse, connect, send
from mixcli.errors import MixcliError, ModelDied, UsageError
from mixcli.host.protocol.messages import ChatBody
from tests.support.scripted_host import scripted_host

Answer = Callable[..., Path]
OK = b"HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\n"
CHUNKED = OK + b"Transfer-Encoding: chunked\r\n\r\n"
EVENT = b'data: {"choices": [{"delta": {"content": "Hel"}}]}\n\n'
ASK = ChatBody(whole={"messages": []})


@pytest.fixture
def answer(tmp_path: Path) -> Iterator[Answer]:
    """Start a server on a unix socket that reads the first bytes of a request, sends some bytes and closes the connection."""
    with contextlib.ExitStack() as stack:

        def start(*pieces: bytes) -> Path:
            server = stack.enter_context(socket.socket(socket.AF_UNIX))
            path = tmp_path / "s"
            server.bind(str(path))
            server.listen(8)
            threading.Thread(target=_serve, args=(server, pieces), daemon=True).start()
            return path

        yield start


def _serve(server: socket.socket, pieces: tuple[bytes, ...]) -> None:
    with contextlib.suppress(OSError):
        while True:
            peer, _ = server.accept()
            with peer, contextlib.suppress(OSError):
                peer.recv(1 << 10)
                for piece in pieces:
                    peer.sendall(piece)


def received(path: Path) -> tuple[int, str, bytes]:
    with contextlib.closing(connect(path, 60.0)) as connection:
        send(connection, "GET", "/", {}, b"")
        with UnixResponse(connection) as response:
            return response.status, response.reason, body_of(response)


@pytest.mark.parametrize(
    "whole",
    [
        OK + b"Content-Length: 11\r\n\r\nHello world",
        OK + b"content-length:11 \r\n\r\nHello worldand more",
        OK + b"\r\nHello world",
        CHUNKED + b"5\r\nHello\r\n06;name=value\r\n world\r\n0\r\n\r\n",
        CHUNKED + b"B\r\nHello world\r\n0\r\nTrailer: x\r\n\r\n",
        OK.replace(b"\r", b"") + b"\nHello world",
    ],
)
def test_a_body_ends_as_its_head_says(answer: Answer, whole: bytes) -> None:
    assert received(answer(whole)) == (200, "OK", b"Hello world")


def test_an_answer_may_come_byte_by_byte(answer: Answer) -> None:
    whole = CHUNKED + b"5\r\nHello\r\n6\r\n world\r\n0\r\n\r\n"
    assert received(answer(*(bytes([one]) for one in whole))) == (200, "OK", b"Hello world")


def test_a_large_body_comes_whole(answer: Answer) -> None:
    large = bytes(range(256)) * 4096
    path = answer(CHUNKED + b"%x\r\n" % len(large) + large + b"\r\n0\r\n\r\n")
    assert received(path)[2] == large


@pytest.mark.parametrize(
    "torn",
    [
        b"HTTP/1.1 2",
        b"HTTP/1.1 200 OK\r\nContent-",
        OK + b"Content-Length: 11\r\n\r\nHello",
        CHUNKED,
        CHUNKED + b"5",
        CHUNKED + b"5\r\nHel",
        CHUNKED + b"5\r\nHello\r\n",
        CHUNKED + b"0\r\n",
    ],
)
def test_a_torn_answer_is_never_a_whole_one(answer: Answer, torn: bytes) -> None:
    path = answer(torn)
    with pytest.raises(BrokenResponse):
        received(path)
    with pytest.raises(ModelDied, match="crashed before the response"):
        HostClient(path).count_text("Hello")


@pytest.mark.parametrize(
    "other",
    [
        b"SSH-2.0-OpenSSH_9.2\r\n",
        b"HTTP/1.1 OK\r\n\r\n",
        b"HTTP/1.1 -20 OK\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nno colon\r\n\r\n",
        b"HTTP/1.1 200 OK\r\n" + b"x" * MAX_LINE + b": 1\r\n\r\n",
        b"HTTP/1.1 200 OK\r\n" + b"x: 1\r\n" * (MAX_HEADERS + 1) + b"\r\n",
        OK + b"Content-Length: -1\r\n\r\nHello",
        OK + b"Content-Length: 1_1\r\n\r\nHello world",
        CHUNKED + b"-5\r\nHello\r\n",
        CHUNKED + b"\r\nHello\r\n",
        CHUNKED + b"4\r\nHello\r\n0\r\n\r\n",
    ],
)
def test_what_is_not_http_is_refused(answer: Answer, other: bytes) -> None:
    path = answer(other)
    with pytest.raises(BrokenResponse):
        received(path)
    if other.startswith(b"SSH"):
        with pytest.raises(ValueError, match="not HTTP"):
            HostClient(path).health()


def test_a_refused_answer_leaves_no_connection_open(answer: Answer) -> None:
    path = answer(b"SSH-2.0-OpenSSH_9.2\r\n")
    with contextlib.closing(connect(path, 60)) as connection:
        send(connection, "GET", "/", {}, b"")
        with pytest.raises(BrokenResponse) as caught:
            UnixResponse(connection)
        assert connection.fileno() == -1
        assert caught.traceback, "which holds the response: its file must be closed, too"
        assert connection._io_refs == 0  # type: ignore[attr-defined]


def test_a_connection_that_ends_without_an_answer_is_reset(answer: Answer) -> None:
    with pytest.raises(ConnectionResetError):
        received(answer())


def test_a_stream_that_ends_in_the_middle_is_a_crash_and_keeps_what_came(answer: Answer) -> None:
    path = answer(CHUNKED + b"%x\r\n%b\r\n" % (len(EVENT), EVENT))
    stream = HostClient(path).chat(ASK)
    assert next(stream).text == "Hel"
    with pytest.raises(ModelDied, match="crashed during the response"):
        next(stream)


@pytest.mark.parametrize(
    ("status", "kind"), [(b"400 Bad Request", UsageError), (b"500 Internal Server Error", MixcliError)]
)
def test_a_refusal_is_read_though_the_request_was_not(
    answer: Answer, status: bytes, kind: type[Exception]
) -> None:
    body = b'{"error": {"message": "the body is too large"}}'
    path = answer(b"HTTP/1.1 %b\r\nContent-Length: %d\r\n\r\n%b" % (status, len(body), body))
    with pytest.raises(kind, match="the body is too large"):
        HostClient(path).count_text("x" * (1 << 22))


def test_an_answer_is_waited_for_beyond_a_thousand_descriptors(tmp_path: Path) -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if hard != resource.RLIM_INFINITY and hard < 4096:
        pytest.skip("the system allows no more")
    resource.setrlimit(resource.RLIMIT_NOFILE, (4096, hard))
    many: list[int] = []
    try:
        with scripted_host(tmp_path) as host:
            while not many or many[-1] < 1100:
                many.append(os.dup(0))
            text = "".join(
                one.text
                for one in HostClient(host.socket).chat(
                    ChatBody(whole={"messages": [{"role": "user", "content": "Hi"}]})
                )
            )
    finally:
        for one in many:
            os.close(one)
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    assert text == "any model read: Hi"
