"""A host is started again for the requests of one port only once, also where a client leaves meanwhile."""

import asyncio
import threading
from pathlib import Path

import pytest

from mixcli.errors import MixcliError
from mixcli.serve import upstream as upstreams
from mixcli.serve.upstream import LoadFailed, Upstream
from tests.support.waiting import LIMIT


class Start:
    """Starts a host when the test lets it, or fails to; counts how often."""

    def __init__(self, *, fails: bool = False) -> None:
        self.n, self.go, self.fails = 0, threading.Event(), fails

    def __call__(self) -> Path:
        self.n += 1
        assert self.go.wait(LIMIT)
        if self.fails:
            raise MixcliError("the file is damaged")
        return Path(f"/socket-{self.n}")


async def left_by_its_client(start: Start) -> tuple[Upstream, "asyncio.Task[object]"]:
    """Return the way to a host that has ended, and a request that waits for its second start after the first one's client has left."""
    upstream = Upstream(start)
    upstream.open(Path("/socket-0"))
    dead = await upstream.ready()
    first = asyncio.create_task(upstream.revived(dead))
    while not start.n:
        await asyncio.sleep(0.001)
    first.cancel()
    with pytest.raises(asyncio.CancelledError):
        await first
    second = asyncio.create_task(upstream.revived(dead))
    await asyncio.sleep(0.05)
    start.go.set()
    return upstream, second


def test_a_start_goes_on_where_its_client_leaves() -> None:
    async def work() -> None:
        start = Start()
        upstream, second = await left_by_its_client(start)
        assert await second is upstream.client
        assert start.n == 1

    asyncio.run(asyncio.wait_for(work(), LIMIT))


def test_a_start_that_fails_without_a_client_is_not_tried_again_at_once(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async def work() -> None:
        start = Start(fails=True)
        upstream, second = await left_by_its_client(start)
        for request in (second, upstream.revived(upstream.client)):  # type: ignore[arg-type]
            with pytest.raises(LoadFailed, match="damaged"):
                await request
        assert start.n == 1

    monkeypatch.setattr(upstreams, "RETRY_PAUSE", 10 * LIMIT)
    asyncio.run(asyncio.wait_for(work(), LIMIT))
