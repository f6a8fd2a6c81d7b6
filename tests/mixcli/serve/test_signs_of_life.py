"""Whether a host hangs: one look for all that wait, and an engine that spins while its process answers."""

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import pytest

from mixcli.host.protocol.paths import CHAT
from mixcli.serve import signs_of_life
from mixcli.serve.exchange import EVENTS, Exchange
from mixcli.serve.forwarding import unless_it_hangs
from mixcli.serve.host_link import HostLink
from mixcli.serve.signs_of_life import LONGEST_STEP, SignsOfLife
from tests.support.waiting import LIMIT

N_REQUESTS = 20


@contextlib.asynccontextmanager
async def host(path: Path, answer: Callable[[int], str | None]) -> AsyncIterator[list[int]]:
    """Listen on a unix socket; `answer` gets the number of a look, None for silence. Yields the numbers of the looks so far."""
    looks: list[int] = []

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        looks.append(len(looks))
        body = answer(looks[-1])
        if body is not None:
            writer.write(f"HTTP/1.1 200 OK\r\nContent-Length: {len(body)}\r\n\r\n{body}".encode())
        with contextlib.suppress(OSError):
            await reader.read()  # until the other end leaves
        writer.close()

    async with await asyncio.start_unix_server(serve, path):
        yield looks


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(signs_of_life, "POLL_INTERVAL", 0.05)
    monkeypatch.setattr(signs_of_life, "silence", lambda: 0.3)


@pytest.mark.usefixtures("quick")
def test_all_that_wait_share_the_looks_and_are_told_at_once(tmp_path: Path) -> None:
    async def run() -> int:
        async with host(tmp_path / "s", lambda _: None) as looks:
            link = HostLink(tmp_path / "s")
            life = SignsOfLife(lambda: link)
            async with asyncio.timeout(LIMIT):
                await asyncio.gather(*(life.end() for _ in range(N_REQUESTS)))
            return len(looks)

    assert asyncio.run(run()) < N_REQUESTS


@pytest.mark.usefixtures("quick")
def test_an_engine_whose_step_does_not_end_is_noticed_although_its_process_answers(tmp_path: Path) -> None:
    async def run(seconds: float) -> bool:
        async with host(tmp_path / "s", lambda _: json.dumps({"step_seconds": seconds})) as looks:
            link = HostLink(tmp_path / "s")
            waiting = asyncio.create_task(SignsOfLife(lambda: link).end())
            async with asyncio.timeout(LIMIT):
                while len(looks) < 20 and not waiting.done():
                    await asyncio.sleep(0.01)
            is_over = waiting.done()
            waiting.cancel()
            return is_over

    assert asyncio.run(run(LONGEST_STEP + 1))
    assert not asyncio.run(run(LONGEST_STEP - 1)), "a long step is none that hangs"


@pytest.mark.usefixtures("quick")
def test_nothing_is_asked_when_nobody_waits(tmp_path: Path) -> None:
    async def run() -> bool:
        async with host(tmp_path / "s", lambda _: "{}") as looks:
            link = HostLink(tmp_path / "s")
            life = SignsOfLife(lambda: link)
            for _ in range(2):  # a second one, after the first has left, is served as well
                waiting = asyncio.create_task(life.end())
                n_before = len(looks)
                async with asyncio.timeout(LIMIT):
                    while len(looks) < n_before + 2:
                        await asyncio.sleep(0.01)
                waiting.cancel()
                with contextlib.suppress(asyncio.CancelledError):
                    await waiting
            await asyncio.sleep(0)
            return life._polls is None

    assert asyncio.run(run())


@pytest.mark.parametrize(("piece", "ends"), [(b"data: {}\n\n", True), (b"", True), (b"data: {", False)])
def test_a_stream_of_a_host_that_hangs_ends_with_an_error_event(piece: bytes, ends: bool) -> None:
    sent: list[dict[str, Any]] = []

    async def transmit(message: dict[str, Any]) -> None:
        sent.append(message)

    async def run() -> None:
        exchange = Exchange({"path": CHAT, "headers": []}, asyncio.Event().wait, transmit, [])  # type: ignore[arg-type]
        begun = asyncio.Event()

        async def work() -> None:
            await exchange.start(200, EVENTS)
            await exchange.piece(piece, more=True)
            begun.set()
            await asyncio.Event().wait()

        async def hangs() -> None:
            await begun.wait()

        await unless_it_hangs(exchange, work(), hangs())

    asyncio.run(run())
    if ends:
        assert b"does not respond" in sent[-1]["body"] and sent[-1]["body"].startswith(b"data: ")
        assert not sent[-1]["more_body"]
    else:
        assert sent[-1]["more_body"], "an event that is incomplete is not made to look whole"
