"""One model behind the port: loaded at the start, started again when its process has ended; it answers whatever model a request names."""

import asyncio
import contextlib
from collections.abc import Callable
from pathlib import Path

from mixcli.host.protocol.paths import HEALTH, LOADING, READY
from mixcli.host.protocol.port_state import LOADED, PortModel, PortState
from mixcli.serve.exchange import Exchange
from mixcli.serve.forwarding import NotBegun, forward, raced, unless_it_hangs
from mixcli.serve.gate import Accepted
from mixcli.serve.refusal import UNLOADED, Refusal, unavailable
from mixcli.serve.signs_of_life import SignsOfLife
from mixcli.serve.upstream import RETRY_PAUSE, LoadFailed, Upstream


class OneModel:
    """Answers with one host. Until `ready` is called with its socket, requests wait and /health reports the progress of the load.

    `revive` starts the host again when its process died, and returns its socket (called in a thread). `label` is the model's name. `cause` returns
    why the host died, where that is known.
    """

    def __init__(
        self, revive: Callable[[], Path], label: str = "", cause: Callable[[], str] = lambda: ""
    ) -> None:
        self._revive, self._label, self._cause = revive, label, cause
        self._n_answering = 0

    async def open(self) -> None:
        """Begin, in the event loop of the port."""
        self._loop = asyncio.get_running_loop()
        self._upstream = Upstream(self._revive)
        self._life = SignsOfLife(lambda: self._upstream.client)

    async def close(self) -> None:
        """End; nothing is held beyond the requests."""

    def progress(self, share: float) -> None:
        """Record the progress of the load, from 0 to 1; called in any thread."""
        self._upstream.progress = share

    def ready(self, host_socket: Path) -> None:
        """Forward requests from now on, those that have waited first; called in any thread."""
        with contextlib.suppress(RuntimeError):  # the port has ended
            self._loop.call_soon_threadsafe(self._upstream.open, host_socket)

    async def answer(self, exchange: Exchange, accepted: Accepted, body: bytes) -> None:
        """Answer a request that was let in."""
        work = self._answer(exchange, accepted, body)
        counted = accepted.route.loads_model
        self._n_answering += counted
        try:
            await raced(unless_it_hangs(exchange, work, self._life.end()), exchange.gone())
        finally:
            self._n_answering -= counted

    def state(self) -> PortState:
        """Return what the port and its model do now."""
        if self._upstream.client is None:
            progress = round(self._upstream.progress, 3)
            model = PortModel(self._label, LOADING, progress, None, 0, self._n_answering)
            return PortState(LOADING, (model,))
        return PortState(READY, (PortModel(self._label, LOADED, None, None, self._n_answering, 0),))

    async def _answer(self, exchange: Exchange, accepted: Accepted, body: bytes) -> None:
        client = self._upstream.client
        if client is None:
            if not accepted.route.loads_model:
                await self._look_while_loading(exchange, accepted)
                return
            client = await self._upstream.ready()
        try:
            await forward(client, exchange, accepted, body, self._cause)
        except NotBegun:
            if not accepted.route.loads_model:
                await exchange.refuse(_health_of(UNLOADED) if accepted.route.path == HEALTH else UNLOADED)
                return
            try:
                await forward(await self._upstream.revived(client), exchange, accepted, body, self._cause)
            except (LoadFailed, NotBegun) as error:
                message = f"the model process crashed and cannot be started again: {error.__cause__ or error}"
                seconds = error.retry_after if isinstance(error, LoadFailed) else RETRY_PAUSE
                await exchange.refuse(unavailable(message, retry_after=max(1, round(seconds))))

    async def _look_while_loading(self, exchange: Exchange, accepted: Accepted) -> None:
        progress = round(self._upstream.progress, 3)
        refusal = unavailable(
            f"the model is loading ({100 * progress:.0f} %); retry in a few seconds", retry_after=2
        )
        if accepted.route.path == HEALTH:
            refusal = unavailable(refusal.message, 2, status=LOADING, progress=progress)
        await exchange.refuse(refusal)


def _health_of(refusal: Refusal) -> Refusal:
    return unavailable(refusal.message, status="unloaded")
