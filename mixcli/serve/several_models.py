"""Several models behind the port: the `model` of a request chooses one of the pool's, and looks are answered for all of them."""

import asyncio
import contextlib
from concurrent.futures import Future
from functools import partial

from mixcli.host.protocol.paths import (
    CHAT,
    COMPLETIONS,
    HEALTH,
    LOADING,
    MESSAGES,
    METRICS,
    MODEL,
    MODELS,
    READY,
    RESPONSES,
)
from mixcli.host.protocol.port_state import PortState, SharedDevice
from mixcli.serve import pages
from mixcli.serve.eviction import Ledger
from mixcli.serve.exchange import Exchange
from mixcli.serve.forwarding import NotBegun, forward, raced, unless_it_hangs
from mixcli.serve.gate import Accepted
from mixcli.serve.host_link import HostGone, HostLink
from mixcli.serve.loader import Loader
from mixcli.serve.metrics import CONTENT_TYPE, merged
from mixcli.serve.model_field import Nested, fault_of, field_of
from mixcli.serve.model_lifecycle import ModelLifecycle
from mixcli.serve.model_names import ServedModel, ServedModels
from mixcli.serve.model_pool import ModelPool
from mixcli.serve.model_state import Slot, State, Unavailable
from mixcli.serve.refusal import UNLOADED, Refusal, invalid, unavailable
from mixcli.serve.signs_of_life import SignsOfLife
from mixcli.system import json_parts

JSON = [(b"content-type", b"application/json")]
STREAMING = (CHAT, COMPLETIONS, MESSAGES, RESPONSES)
LOOK_TIMEOUT = 2.0  # seconds for a host to tell its state or its counts
ATTEMPTS = 2  # a model process that ended before its answer began is started again once


class SeveralModels:
    """Answers with the models of a pool, of which the `model` field of each request chooses one."""

    def __init__(
        self, served_models: ServedModels, limits: Ledger, loader: Loader, idle_limit: float
    ) -> None:
        self._served, self._limits, self._loader, self._idle_limit = served_models, limits, loader, idle_limit
        self._is_starting = True

    async def open(self) -> None:
        """Begin, in the event loop of the port."""
        self._loop = asyncio.get_running_loop()
        self._lifecycle = ModelLifecycle(self._served, self._limits, self._loader, self._idle_limit)
        self._slots = self._lifecycle.slots
        self._life = {label: _life(slot) for label, slot in self._slots.items()}
        self._pool = ModelPool(self._lifecycle)
        self._pool.start()

    async def close(self) -> None:
        """End what waits."""
        await self._lifecycle.close()

    def preload(self, *, others: bool) -> "Future[None]":
        """Load the models that are kept and the first one, and then, with `others`, those that fit beside them; called in another thread.

        The result comes when the first and the kept ones are loaded, or as the error of one that cannot be.
        """
        return asyncio.run_coroutine_threadsafe(self._preload(others=others), self._loop)

    async def _preload(self, *, others: bool) -> None:
        models = self._served.models
        for model in (one for one in models if one.is_kept or one is models[0]):
            await self._pool.preload(model.label)
        self._is_starting = False
        if others:
            self._lifecycle.spawn(self._preload_more())

    async def _preload_more(self) -> None:
        for model in self._served.models:
            with contextlib.suppress(Exception):  # noted; its requests get the reason
                await self._pool.preload(model.label, only_beside=True)

    async def answer(self, exchange: Exchange, accepted: Accepted, body: bytes) -> None:
        """Answer a request that was let in."""
        if not accepted.route.loads_model:
            await self._look(exchange, accepted)
            return
        found = await self._chosen(body)
        if isinstance(found, Refusal):
            await exchange.refuse(found)
        else:
            await raced(self._ask(exchange, accepted, body, found), exchange.gone())

    async def _chosen(self, body: bytes) -> ServedModel | Refusal:
        if too_much := json_parts.fault_of(body, "body"):  # which takes long to look through too
            return invalid(400, too_much)
        name = await field_of(body, "model")
        if name is None:
            fault = await fault_of(body)
            return self._served.unnamed() if fault is None else invalid(400, fault)
        if isinstance(name, Nested) or not isinstance(name, str):
            return Refusal(
                400, "invalid_request_error", "model: must be a string", "invalid_type", param="model"
            )
        return self._served.find(name) or self._served.unknown(name)

    async def _ask(self, exchange: Exchange, accepted: Accepted, body: bytes, model: ServedModel) -> None:
        is_stream: bool | None = None

        async def tell(text: str) -> None:
            nonlocal is_stream
            if is_stream is None:
                is_stream = accepted.route.path in STREAMING and await field_of(body, "stream") is True
            if is_stream:
                await exchange.comment(text)

        for _ in range(ATTEMPTS):
            client: HostLink | None = None
            try:
                async with self._pool.lease(model.label, tell) as client:
                    host = self._slots[model.label].host
                    why = partial(self._loader.cause, host) if host is not None else str
                    work = forward(client, exchange, accepted, body, why)
                    await unless_it_hangs(exchange, work, self._life[model.label].end())
                return
            except Unavailable as error:
                await exchange.refuse(error.refusal)
                return
            except NotBegun:
                assert client is not None
                await self._pool.lost(model.label, client)
        await exchange.refuse(
            unavailable(
                f"the model process of {model.label} crashed twice before its answer began; see `mixcli doctor`"
            )
        )

    # looks

    def state(self) -> PortState:
        """Return what the port and its models do now."""
        memory = self._lifecycle.memory()
        shared = {device: SharedDevice(limit, memory.left[device]) for device, limit in memory.limits.items()}
        models = tuple(pages.port_model(slot, self._idle_limit) for slot in self._slots.values())
        return PortState(LOADING if self._is_starting else READY, models, shared)

    async def _look(self, exchange: Exchange, accepted: Accepted) -> None:
        slots, path = self._slots.values(), accepted.route.path
        if path == HEALTH:
            states = dict(zip(self._slots, await asyncio.gather(*map(_health, slots)), strict=True))
            status, shown = pages.health(
                slots,
                states,
                self._lifecycle.memory(),
                is_starting=self._is_starting,
                is_brief=accepted.is_brief,
            )
            await exchange.whole(status, JSON, shown)
        elif path == MODELS:
            await exchange.whole(200, JSON, pages.models(slots))
        elif path == MODEL:
            name = accepted.path.removeprefix(MODELS + "/")
            model = self._served.find(name)
            if model is None:
                await exchange.refuse(self._served.unknown(name))
            else:
                await exchange.whole(200, JSON, pages.model(self._slots[model.label], name))
        elif path == METRICS:
            texts = await asyncio.gather(*(_text(slot, METRICS) for slot in slots))
            found = {label: text for label, text in zip(self._slots, texts, strict=True) if text}
            page = merged(found, pages.gauges(slots, self._lifecycle.memory()))
            await exchange.whole(200, [(b"content-type", CONTENT_TYPE.encode())], page)
        else:
            await self._of_any(exchange, accepted)

    async def _of_any(self, exchange: Exchange, accepted: Accepted) -> None:
        """Answer what is the same for all models, such as the API's description, with a host that runs."""
        for slot in self._slots.values():
            if slot.client is not None:
                with contextlib.suppress(NotBegun):
                    work = forward(slot.client, exchange, accepted, b"")
                    hangs = self._life[slot.label].end()
                    await raced(unless_it_hangs(exchange, work, hangs), exchange.gone())
                    return
        await exchange.refuse(UNLOADED)


def _life(slot: Slot) -> SignsOfLife:
    """Return the signs of life of a model's host."""
    return SignsOfLife(lambda: slot.client)


async def _text(slot: Slot, path: str) -> str | None:
    """Return what the host of a model says at a path; None where none is there to say it."""
    if slot.state is not State.LOADED or slot.client is None:
        return None
    try:
        return (await slot.client.get(path, LOOK_TIMEOUT)).decode("utf-8", "replace")
    except (HostGone, TimeoutError):
        return None


async def _health(slot: Slot) -> str | None:
    return await _text(slot, HEALTH)
