"""The connection from the port to the host: wait for its first load, start it again when it has ended."""

import asyncio
import time
from collections.abc import Callable
from pathlib import Path

from mixcli.serve.host_link import HostLink

RETRY_PAUSE = 10.0  # seconds after a failed load until a request tries again


class LoadFailed(Exception):
    """The model could not be loaded; the message says why. After `retry_after` seconds a request tries again."""

    def __init__(self, message: str, retry_after: float) -> None:
        super().__init__(message)
        self.retry_after = retry_after


class Upstream:
    """The client of one host. `revive` starts it again when its process died, and returns its socket (called in a thread)."""

    def __init__(self, revive: Callable[[], Path]) -> None:
        self._revive = revive
        self._revival: asyncio.Task[None] | None = None
        self._first: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._client: HostLink | None = None
        self._why, self._retry_at = "", 0.0  # of the last load that failed; on the clock of time.monotonic
        self.progress = 0.0  # of the first load, from 0 to 1

    @property
    def client(self) -> HostLink | None:
        """Return the client, None before the first load is done."""
        return self._client

    def open(self, socket: Path) -> None:
        """Take the socket of a host that has loaded its model; what waits for it begins."""
        self._client = HostLink(socket)
        if not self._first.done():
            self._first.set_result(None)

    async def ready(self) -> HostLink:
        """Return the client, when the first load is done."""
        await asyncio.shield(self._first)
        assert self._client is not None
        return self._client

    async def revived(self, dead: HostLink) -> HostLink:
        """Return the client of a new host in place of one that has ended; raise LoadFailed where none can be started.

        After a load that failed requests are refused for RETRY_PAUSE seconds, and the next one tries again. A load continues when its
        client leaves, and the next request waits for it.
        """
        if self._client is dead:
            if (left := self._retry_at - time.monotonic()) > 0:
                raise LoadFailed(self._why, left)
            if self._revival is None:
                self._revival = asyncio.create_task(self._revived())
            await asyncio.shield(self._revival)
            if self._client is dead:
                raise LoadFailed(self._why, RETRY_PAUSE)
        assert self._client is not None
        return self._client

    async def _revived(self) -> None:
        try:
            self.open(
                await asyncio.to_thread(self._revive)
            )  # the other client may still read answers of a host that drains
        except Exception as error:  # whatever it is, the clients get a sentence
            self._why, self._retry_at = str(error), time.monotonic() + RETRY_PAUSE
        finally:
            self._revival = None
