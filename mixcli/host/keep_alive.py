"""Keep-alive: how long an unused model stays loaded."""

import asyncio
import math
import time
from collections.abc import Iterator
from contextlib import contextmanager

GRACE = 30.0  # seconds that a fresh host waits for its first client


class KeepAlive:
    """Count the clients of the model; `wait_until_unwanted` returns when it may be unloaded.

    `busy` clients hold it now, `n_clients` have come so far. Times are seconds; a keep_alive below zero means forever. The one that leaves last decides how long the model stays.
    """

    def __init__(self, keep_alive: float = GRACE) -> None:
        self.busy = 0
        self.n_clients = 0
        self._keep_alive = keep_alive
        self._idle_since = time.monotonic()
        self._changed = asyncio.Event()

    @contextmanager
    def client(self, keep_alive: float | None = None) -> Iterator[None]:
        """Hold the model while the block runs; None keeps the current keep_alive."""
        self.busy += 1
        self.n_clients += 1
        try:
            yield
        finally:
            self.busy -= 1
            if keep_alive is not None:
                self._keep_alive = keep_alive
            self._idle_since = time.monotonic()
            self._changed.set()

    @property
    def expires_in(self) -> float:
        """Return the seconds until the model is unloaded; infinite while it is in use or has no keep-alive limit."""
        if self.busy or self._keep_alive < 0:
            return math.inf
        return max(0.0, self._idle_since + self._keep_alive - time.monotonic())

    async def wait_until_unwanted(self) -> None:
        """Return once the model was unused for its keep_alive."""
        while (left := self.expires_in) > 0:
            self._changed.clear()
            try:
                await asyncio.wait_for(self._changed.wait(), None if left == math.inf else left)
            except TimeoutError:
                continue
