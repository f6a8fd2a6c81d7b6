"""Whether a host hangs: its process is stopped, its event loop is blocked, or its engine does not end a step."""

import asyncio
import json
import time
from collections.abc import Callable

from mixcli.host.protocol.messages import number_in, object_of
from mixcli.host.protocol.paths import HEALTH
from mixcli.serve.host_link import HostGone, HostLink
from mixcli.system.process_state import silence

POLL_INTERVAL = 5.0  # seconds between two looks at a host, and for each of them
LONGEST_STEP = 1800.0  # seconds of one step of the engine: a piece of a prompt on a slow machine at the most


class SignsOfLife:
    """Detects when the host of the `current` client hangs; one that has ended, or is loading, does not count.

    Seconds are those in which this process looks: if this process was stopped itself, no host counts as hanging.
    """

    def __init__(self, current: Callable[[], HostLink | None]) -> None:
        self._current = current
        self._silent, self._looked_at = 0.0, time.monotonic()
        self._n_waiting = 0
        self._polls: asyncio.Task[None] | None = None

    async def end(self) -> None:
        """Return when the host hangs. All that wait for this share one look every POLL_INTERVAL seconds."""
        if self._polls is None or self._polls.done():
            self._polls = asyncio.create_task(self._poll())
        self._n_waiting += 1
        try:
            await asyncio.shield(self._polls)
        finally:
            self._n_waiting -= 1
            if not self._n_waiting and self._polls is not None:
                self._polls.cancel()
                self._polls = None

    async def _poll(self) -> None:
        self._silent, self._looked_at = 0.0, time.monotonic()
        while True:
            await asyncio.sleep(POLL_INTERVAL)
            if await self.look():
                return

    async def look(self) -> bool:
        """Look once; return whether the host has given no sign of life for so long that it hangs."""
        if await self._gives_one():
            self._silent = 0.0
        else:
            self._silent += min(time.monotonic() - self._looked_at, 3 * POLL_INTERVAL)
        self._looked_at = time.monotonic()
        return self._silent >= silence()

    async def _gives_one(self) -> bool:
        if (client := self._current()) is None:
            return True
        try:
            raw = await client.get(HEALTH, POLL_INTERVAL)
        except TimeoutError:
            return False
        except HostGone:
            return True
        return _step_seconds(raw) <= LONGEST_STEP


def _step_seconds(raw: bytes) -> float:
    """Return how long the engine's current step has taken, as /health has it; 0 where that is not reported."""
    try:
        return number_in(object_of(json.loads(raw)).get("step_seconds")) or 0.0
    except ValueError:
        return 0.0


__all__ = ["LONGEST_STEP", "POLL_INTERVAL", "SignsOfLife"]
