"""HTTP from the port to a host: every way to end a body, answers that are torn or malformed, and hosts that are not there."""

import asyncio
import contextlib
import itertools
import os
import socket
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import hypothesis.strategies as st
import pytest
from hypothesis import given

from mixcli.serve.host_link import Chunks, HostGone, HostLink

OK = b"HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\n"
CHUNKED = OK + b"Transfer-Encoding: chunked\r\n\r\n"
LARGE = os.urandom(300_000)
Host = Callable[[bytes], HostLink]


@pytest.fixture
def host(tmp_path: Path) -> Iterator[Host]:
    """Start a host that reads a request, sends some bytes and closes the connection."""
    with contextlib.ExitStack() as stack:

        def start(raw: bytes) -> HostLink:
            server = stack.enter_context(socket.socket(socket.AF_UNIX))
            path = tmp_path / "s"
            path.unlink(missing_ok=True)
            server.bind(str(path))
            server.listen(8)
            threading.Thread(target=_serve, args=(server, raw), daemon=True).start()
            return HostLink(path)

        yield start


def _serve(server: socket.socket, raw: bytes) -> None:
    with contextlib.suppress(OSError):
        while True:
            peer, _ = server.accept()
            with peer, contextlib.suppress(OSError):
                peer.recv(1 << 16)
                peer.sendall(raw)


async def _asked(link: HostLink) -> tuple[int, bytes]:
    response = await link.send("POST", "/x", [(b"content-type", b"application/json")], b"{}")
    async with contextlib.aclosing(response):
        return response.status, await response.aread()


@pytest.mark.parametrize(
    ("raw", "body"),
    [
        (OK + b"Content-Length: 11\r\n\r\nHello world", b"Hello world"),
        (OK + b"content-length: 0\r\n\r\n", b""),
        (CHUNKED + b"5\r\nHello\r\n6;x=y\r\n world\r\n0\r\n\r\n", b"Hello world"),
        (CHUNKED + b"%x\r\n%b\r\n0\r\n\r\n" % (len(LARGE), LARGE), LARGE),
        (OK + b"Content-Length: %d\r\n\r\n%b" % (len(LARGE), LARGE), LARGE),
        (OK + b"Connection: close\r\n\r\nHello world", b"Hello world"),
    ],
)
def test_a_body_ends_where_it_says(host: Host, raw: bytes, body: bytes) -> None:
    assert asyncio.run(_asked(host(raw))) == (200, body)


@pytest.mark.parametrize(
    ("method", "raw"),
    [("HEAD", OK + b"Content-Length: 11\r\n\r\n"), ("GET", b"HTTP/1.1 204 No Content\r\nX: y\r\n\r\n")],
)
def test_a_response_without_a_body_is_whole(host: Host, method: str, raw: bytes) -> None:
    async def asked() -> bytes:
        async with contextlib.aclosing(await host(raw).send(method, "/x")) as response:
            return await response.aread()

    assert asyncio.run(asked()) == b""


@pytest.mark.parametrize(
    "raw",
    [
        b"",
        b"HTTP/1.1 200",
        b"nonsense\r\n\r\n",
        b"HTTP/1.1 200 OK\r\n" + b"X: y\r\n" * 50_000,
        OK + b"Content-Length: 11\r\n\r\nHello",
        OK + b"Content-Length: many\r\n\r\nHello",
        CHUNKED + b"5\r\nHel",
        CHUNKED + b"five\r\nHello\r\n",
        CHUNKED + b"5\r\nHello\r\n",
        CHUNKED + b"-5\r\nHello\r\n0\r\n\r\n",
        CHUNKED + b"5" * 2000,
    ],
)
def test_what_is_torn_or_malformed_is_a_host_that_is_gone(host: Host, raw: bytes) -> None:
    with pytest.raises(HostGone):
        asyncio.run(_asked(host(raw)))


@given(st.lists(st.binary(min_size=1, max_size=20), max_size=8), st.lists(st.integers(1, 9), min_size=1))
def test_chunks_are_whole_wherever_they_are_cut(bodies: list[bytes], cuts: list[int]) -> None:
    raw = b"".join(b"%x\r\n%b\r\n" % (len(body), body) for body in bodies) + b"0\r\n\r\n"
    chunks = Chunks()
    found = b""
    for n in itertools.cycle(cuts):
        found += chunks.add(raw[:n])
        raw = raw[n:]
        whole = list(itertools.accumulate(bodies, initial=b""))
        assert found in whole, "no part of a chunk goes on"
        if chunks.are_complete:
            break
    assert found == b"".join(bodies)
    assert raw in (b"\r\n\r\n", b"\n\r\n", b"\r\n", b"\n", b"")


def test_chunks_that_came_together_go_on_together() -> None:
    assert Chunks().add(b"5\r\nHello\r\n6\r\n world\r\n2\r\n!") == b"Hello world"


def test_a_host_that_is_not_there_is_gone(tmp_path: Path) -> None:
    with pytest.raises(HostGone):
        asyncio.run(_asked(HostLink(tmp_path / "nothing")))


def test_a_look_at_a_silent_host_has_an_end(tmp_path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(tmp_path / "s"))
        listener.listen(8)
        with pytest.raises(TimeoutError):
            asyncio.run(HostLink(tmp_path / "s").get("/health", 0.1))


def test_one_more_than_can_wait_is_accepted_later(tmp_path: Path) -> None:
    """Where the system's queue is full, a connection is tried again until there is room."""
    with socket.socket(socket.AF_UNIX) as listener, contextlib.ExitStack() as waiting:
        listener.bind(str(tmp_path / "s"))
        listener.listen(0)
        first = waiting.enter_context(socket.socket(socket.AF_UNIX))
        first.connect(str(tmp_path / "s"))

        async def main() -> tuple[int, bytes]:
            asked = asyncio.create_task(_asked(HostLink(tmp_path / "s")))
            await asyncio.sleep(0.05)
            listener.accept()[0].close()
            peer = await asyncio.to_thread(lambda: listener.accept()[0])
            with peer:
                await asyncio.to_thread(peer.recv, 1 << 16)
                peer.sendall(OK + b"Content-Length: 2\r\n\r\nok")
                return await asked

        assert asyncio.run(main()) == (200, b"ok")
