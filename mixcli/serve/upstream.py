"""The way from the port to the host: wait for its first load, start it again when it has ended, notice when it is silent."""

import asyncio
import time
from collections.abc import Callable
from pathlib import Path

import httpx2

from mixcli.host.protocol.paths import HEALTH
from mixcli.system.process_state import silence

POLL_INTERVAL = 5.0  # seconds between two looks at it, while it computes

HOST = "http://host"  # the socket has no name of its own


class LoadFailed(Exception):
    """The model could not be loaded; the message says why."""


class Upstream:
    """The client of one host. `revive` starts it again when its process died, and returns its socket (called in a thread)."""

    def __init__(self, revive: Callable[[], Path]) -> None:
        self._revive = revive
        self._reviving = asyncio.Lock()
        self._first: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._client: httpx2.AsyncClient | None = None
        self.progress = 0.0  # of the first load, from 0 to 1

    @property
    def client(self) -> httpx2.AsyncClient | None:
        """The client, None before the first load is done."""
        return self._client

    def open(self, socket: Path) -> None:
        """Take the socket of a host that has loaded its model; what waits for it begins."""
        self._client = client_of(socket)
        if not self._first.done():
            self._first.set_result(None)

    async def ready(self) -> httpx2.AsyncClient:
        """Return the client, when the first load is done."""
        await asyncio.shield(self._first)
        assert self._client is not None
        return self._client

    async def revived(self, dead: httpx2.AsyncClient) -> httpx2.AsyncClient:
        """Return the client of a new host in place of one that has ended; raise LoadFailed where none can be started."""
        async with self._reviving:
            if self._client is dead:
                try:
                    socket = await asyncio.to_thread(self._revive)
                except Exception as error:  # whatever it is, the client gets a sentence
                    raise LoadFailed(str(error)) from error
                self.open(socket)  # the other client may still read answers of a host that drains
        assert self._client is not None
        return self._client

    async def close(self) -> None:
        """Close the connections to the host."""
        if self._client is not None:
            await self._client.aclose()


async def hangs(current: Callable[[], httpx2.AsyncClient | None]) -> None:
    """Return when the host of the current client gives no sign of life for so long that it hangs; one that is gone or loads is another matter."""
    alive = time.monotonic()
    while time.monotonic() - alive < silence():
        await asyncio.sleep(POLL_INTERVAL)
        if (client := current()) is not None:
            try:
                await client.get(HOST + HEALTH, timeout=POLL_INTERVAL)
            except httpx2.TimeoutException:
                continue
            except httpx2.HTTPError:
                pass
        alive = time.monotonic()


def client_of(socket: Path) -> httpx2.AsyncClient:
    """Return an HTTP client of the host that listens on a socket."""
    transport = httpx2.AsyncHTTPTransport(uds=str(socket), limits=httpx2.Limits(max_keepalive_connections=0))
    return httpx2.AsyncClient(transport=transport, timeout=None, trust_env=False)
