"""Several models behind the port: the `model` of a request chooses one of the pool's, and looks are answered for all of them."""

import asyncio
import contextlib
from concurrent.futures import Future

import httpx2

from mixcli.host.protocol.paths import CHAT, COMPLETIONS, HEALTH, MESSAGES, METRICS, MODEL, MODELS, RESPONSES
from mixcli.serve import pages
from mixcli.serve.exchange import Exchange
from mixcli.serve.forwarding import MODEL_GONE, NotBegun, forward, raced, unless_it_hangs
from mixcli.serve.gate import Accepted
from mixcli.serve.loader import Loader
from mixcli.serve.metrics import CONTENT_TYPE, merged
from mixcli.serve.model_field import Nested, field_of
from mixcli.serve.pool import ModelPool
from mixcli.serve.refusal import UNLOADED, Refusal, unavailable
from mixcli.serve.residence import Residence
from mixcli.serve.room import Ledger
from mixcli.serve.roster import Roster, ServedModel
from mixcli.serve.slot import Slot, State, Unavailable
from mixcli.serve.upstream import HOST, hangs

JSON = [(b"content-type", b"application/json")]
STREAMING = (CHAT, COMPLETIONS, MESSAGES, RESPONSES)
LOOK_TIMEOUT = 2.0  # seconds for a host to tell its state or its counts
ATTEMPTS = 2  # a model process that ended before its answer began is started again once


class SeveralModels:
    """Answers with the models of a pool, of which the `model` field of each request chooses one."""

    def __init__(self, roster: Roster, limits: Ledger, loader: Loader, idle_limit: float) -> None:
        self._roster, self._limits, self._loader, self._idle_limit = roster, limits, loader, idle_limit
        self._is_starting = True

    async def open(self) -> None:
        """Begin, in the event loop of the port."""
        self._loop = asyncio.get_running_loop()
        self._residence = Residence(self._roster, self._limits, self._loader, self._idle_limit)
        self._slots = self._residence.slots
        self._pool = ModelPool(self._residence)
        self._pool.start()

    async def close(self) -> None:
        """End what waits, and close the connections to the hosts."""
        await self._residence.close()

    def preload(self, *, others: bool) -> "Future[None]":
        """Load the models that are kept and the first one, and then, with `others`, those that fit beside them; called in another thread.

        The result comes when the first and the kept ones are loaded, or as the error of one that cannot be.
        """
        return asyncio.run_coroutine_threadsafe(self._preload(others=others), self._loop)

    async def _preload(self, *, others: bool) -> None:
        models = self._roster.models
        for model in (one for one in models if one.is_kept or one is models[0]):
            await self._pool.preload(model.label)
        self._is_starting = False
        if others:
            self._residence.spawn(self._preload_more())

    async def _preload_more(self) -> None:
        for model in self._roster.models:
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
        name = await field_of(body, "model")
        if name is None:
            return self._roster.unnamed()
        if isinstance(name, Nested) or not isinstance(name, str):
            return Refusal(
                400, "invalid_request_error", "model: must be a string", "invalid_type", param="model"
            )
        return self._roster.find(name) or self._roster.unknown(name)

    async def _ask(self, exchange: Exchange, accepted: Accepted, body: bytes, model: ServedModel) -> None:
        is_stream: bool | None = None

        async def tell(text: str) -> None:
            nonlocal is_stream
            if is_stream is None:
                is_stream = accepted.route.path in STREAMING and await field_of(body, "stream") is True
            if is_stream:
                await exchange.comment(text)

        for _ in range(ATTEMPTS):
            client: httpx2.AsyncClient | None = None
            try:
                async with self._pool.lease(model.label, tell) as client:
                    work = forward(client, exchange, accepted, body)
                    await unless_it_hangs(exchange, work, _hangs(client))
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

    async def _look(self, exchange: Exchange, accepted: Accepted) -> None:
        slots, path = self._slots.values(), accepted.route.path
        if path == HEALTH:
            states = dict(zip(self._slots, await asyncio.gather(*map(_health, slots)), strict=True))
            status, shown = pages.health(
                slots,
                states,
                self._residence.memory(),
                is_starting=self._is_starting,
                is_brief=accepted.is_brief,
            )
            await exchange.whole(status, JSON, shown)
        elif path == MODELS:
            await exchange.whole(200, JSON, pages.models(slots))
        elif path == MODEL:
            name = accepted.path.removeprefix(MODELS + "/")
            model = self._roster.find(name)
            if model is None:
                await exchange.refuse(self._roster.unknown(name))
            else:
                await exchange.whole(200, JSON, pages.model(self._slots[model.label], name))
        elif path == METRICS:
            texts = await asyncio.gather(*(_text(slot, METRICS) for slot in slots))
            found = {label: text for label, text in zip(self._slots, texts, strict=True) if text}
            page = merged(found, pages.gauges(slots, self._residence.memory()))
            await exchange.whole(200, [(b"content-type", CONTENT_TYPE.encode())], page)
        else:
            await self._of_any(exchange, accepted)

    async def _of_any(self, exchange: Exchange, accepted: Accepted) -> None:
        """Answer what is the same for all models, such as the API's description, with a host that runs."""
        for slot in self._slots.values():
            if slot.client is not None:
                with contextlib.suppress(NotBegun):
                    await raced(forward(slot.client, exchange, accepted, b""), exchange.gone())
                    return
        await exchange.refuse(UNLOADED)


async def _hangs(client: httpx2.AsyncClient) -> None:
    """Return when the host of a client hangs."""
    await hangs(lambda: client)


async def _text(slot: Slot, path: str) -> str | None:
    """Return what the host of a model says at a path; None where none is there to say it."""
    if slot.state is not State.LOADED or slot.client is None:
        return None
    try:
        return (await slot.client.get(HOST + path, timeout=LOOK_TIMEOUT)).text
    except (*MODEL_GONE, httpx2.TimeoutException):
        return None


async def _health(slot: Slot) -> str | None:
    return await _text(slot, HEALTH)
