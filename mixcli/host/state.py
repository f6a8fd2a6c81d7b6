"""The state that a host's handlers share: the engine, the connected clients, and a signal for every change of the load."""

import asyncio
import contextlib
import math
import os
import time

from mixcli.errors import Busy
from mixcli.host.idempotency import IdempotencyCache
from mixcli.host.keep_alive import KeepAlive
from mixcli.host.loop import EngineLoop
from mixcli.host.protocol.errors import error_body
from mixcli.host.protocol.health import HostHealth
from mixcli.host.protocol.host_spec import HostSpec
from mixcli.host.protocol.paths import FAILED
from mixcli.host.protocol.status import LoadStatus


class HostState:
    """The state that the handlers share: the engine, the connected clients, and a signal for every change of the load."""

    def __init__(self, spec: HostSpec) -> None:
        self.spec = spec
        self.keep_alive = KeepAlive()
        self.replies = IdempotencyCache()
        self.closing = asyncio.Event()
        self.created = int(time.time())
        self._size: int | None = (
            None  # of the file at the start: later it may be gone, or on a server that hangs
        )
        with contextlib.suppress(OSError):
            self._size = spec.name.path.stat().st_size
        self._loop = asyncio.get_running_loop()
        self._changed = asyncio.Event()  # of the current generation: set once, then replaced
        self.engine = EngineLoop(spec, self._on_state)

    def _on_state(self) -> None:
        with contextlib.suppress(RuntimeError):  # the event loop has ended
            self._loop.call_soon_threadsafe(self.wake)

    def wake(self) -> None:
        """Notify all followers of a change of state."""
        self._changed.set()
        self._changed = asyncio.Event()

    async def change(self) -> None:
        """Wait for the next change, half a second at most; nothing is held meanwhile, so a client may leave at any moment."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(0.5):
                await self._changed.wait()

    async def wait_until_unwanted(self) -> None:
        """Return when the model may be unloaded: its keep-alive expired, or the load failed and all clients got the error."""
        while self.keep_alive.expires_in:  # a client may have come just when it expired
            unwanted = asyncio.create_task(self.keep_alive.wait_until_unwanted())
            while not unwanted.done():
                if self.engine.status == FAILED and self.keep_alive.n_clients and not self.keep_alive.busy:
                    unwanted.cancel()
                    return
                await asyncio.wait({unwanted}, timeout=0.2)

    def close(self) -> None:
        """Refuse new requests, and disconnect the followers of the state."""
        self.closing.set()
        self.wake()

    def check_open(self) -> None:
        """Raise Busy when the model is being unloaded: nothing begins then."""
        if self.closing.is_set():
            raise Busy("the model is unloading; retry to load it again")

    def health(self) -> HostHealth:
        """Return the whole state."""
        expires_in = self.keep_alive.expires_in
        return HostHealth(
            self.engine.status,
            os.getpid(),
            self.engine.progress,
            tuple(self.engine.notes),
            self.spec.name.label,
            os.fspath(self.spec.name.path),
            self._size,
            self.engine.placement.n_ctx,
            self.engine.counts(),
            self.keep_alive.busy,
            None if expires_in == math.inf else round(expires_in, 1),
            self.engine.meter.use(),
        )

    def load_status(self) -> LoadStatus:
        """Return the state of the load, as its followers see it."""
        engine = self.engine
        error = engine.error if engine.status == FAILED else None
        return LoadStatus(
            engine.status,
            engine.progress,
            tuple(engine.notes),
            os.getpid(),
            engine.placement.speculates,
            error_body(error)[1] if error else None,
        )
