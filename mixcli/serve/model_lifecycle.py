"""Models that come into memory and leave it: loads, unloads, and those that were unused for too long.

All of it runs in the event loop of the port; what blocks is the loader's, in threads.
"""

import asyncio
import contextlib
import json
import time
from collections.abc import Coroutine

from mixcli.errors import Unresponsive
from mixcli.host.protocol.messages import object_of
from mixcli.host.protocol.paths import MODELS
from mixcli.serve.eviction import Ledger, Memory, Resident, room
from mixcli.serve.host_link import HostLink
from mixcli.serve.loader import Loader, Planned, in_thread
from mixcli.serve.model_names import ServedModels
from mixcli.serve.model_state import Failure, Slot, State
from mixcli.serve.refusal import Refusal, unavailable
from mixcli.serve.upstream import RETRY_PAUSE

CARD_TIMEOUT = 60.0  # seconds for a model that was just loaded to report its features
LENT_PAUSE = 1.0  # seconds between two checks whether other programs use a model


class ModelLifecycle:
    """The slots of all models, and the memory that they share: `limits` is bytes by device.

    A model that was loaded for a request and has been unused for `idle_limit` seconds is unloaded (below 0: never).
    """

    def __init__(
        self, served_models: ServedModels, limits: Ledger, loader: Loader, idle_limit: float
    ) -> None:
        self.slots = {model.label: Slot(model) for model in served_models.models}
        self.loader = loader
        self._limits, self._idle_limit = limits, idle_limit
        self._changed = asyncio.Event()  # of the current generation: set once, then replaced
        self._tasks: set[asyncio.Task[None]] = set()

    def memory(self, but: Slot | None = None) -> Memory:
        """Return what all models, or all `but` one, leave of the memory."""
        return Memory(self._limits, room(self._limits, self.residents(but)))

    def residents(self, but: Slot | None = None) -> list[Resident]:
        """Return the models, `but` one, that take memory now, or for which it is kept."""
        others = (slot for slot in self.slots.values() if slot is not but)
        return [slot.resident for slot in others if slot.state is not State.UNLOADED or slot.model.is_kept]

    def wake(self) -> None:
        """Wake those that wait for a change."""
        self._changed.set()
        self._changed = asyncio.Event()

    async def change(self, seconds: float | None = None) -> None:
        """Wait until something has changed, at most so long."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await self._changed.wait()

    def spawn(self, work: Coroutine[None, None, None]) -> asyncio.Task[None]:
        """Do some work beside all else, until `close`; a request that waits for it may leave."""
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task

    async def close(self) -> None:
        """End the work; the loader ends the hosts that run."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    def load(self, slot: Slot, planned: Planned) -> None:
        """Begin to load a model; all requests that wait for it get it, or the reason of the failure."""
        slot.state, slot.needs, slot.progress = State.LOADING, planned.needs, 0.0
        self.spawn(self._load(slot, planned))

    async def _load(self, slot: Slot, planned: Planned) -> None:
        begin = time.monotonic()

        def report(share: float) -> None:
            slot.progress = share

        host = None
        try:
            host = await in_thread(lambda: self.loader.load(slot.model, planned, report))
            client = HostLink(host.socket)
            slot.card = await _card(client)
        except Exception as error:
            if host is not None:
                try:
                    await in_thread(lambda: self.loader.unload(host, anyway=True))
                except Exception as other:  # requests get the error of the load all the same
                    self.loader.note(f"{slot.label} cannot be unloaded: {other}")
            slot.state = State.UNLOADED
            self.fail(slot, error)
            return
        slot.host, slot.client, slot.failure = host, client, None
        slot.state, slot.last_used = State.LOADED, time.monotonic()
        slot.counts["loads"] += 1
        self.loader.note(f"loaded {slot.label} in {slot.last_used - begin:.1f} s")
        slot.admit_waiters()  # also where its place is wanted next: each turn answers what has come for it
        self.wake()

    def fail(self, slot: Slot, error: Exception) -> None:
        """Record that a model cannot be loaded now, and refuse the requests that wait for it."""
        reason = str(error) or type(error).__name__
        slot.counts["failures"] += 1
        slot.failure = Failure(reason, time.monotonic() + RETRY_PAUSE, error)
        slot.needs = {}
        slot.refuse_waiters(refusal_of(slot, reason, RETRY_PAUSE))
        self.loader.note(f"{slot.label} cannot be loaded: {reason}")
        self.wake()

    def unload(self, slot: Slot, reason: str, *, anyway: bool = False) -> Coroutine[None, None, None]:
        """Let no more requests have a model, and return what ends its host and waits until its memory is free.

        A model that another program uses stays loaded, unless `anyway`.
        """
        slot.state = State.UNLOADING
        return self._unload(slot, reason, anyway=anyway)

    async def _unload(self, slot: Slot, reason: str, *, anyway: bool) -> None:
        host = slot.host
        assert host is not None
        try:
            is_gone = await in_thread(lambda: self.loader.unload(host, anyway=anyway))
        except Exception as error:
            self.loader.note(f"{slot.label} cannot be unloaded: {error}")
            is_gone = False
        if not is_gone:
            slot.state, slot.is_lent, slot.last_used = State.LOADED, True, time.monotonic()
            self.wake()
            return
        slot.state, slot.host, slot.client, slot.needs = State.UNLOADED, None, None, {}
        slot.is_lasting = slot.is_lent = False
        slot.counts[f"unloads {reason}"] += 1
        self.loader.note(f"unloaded {slot.label} ({reason})")
        self.wake()

    async def expire(self) -> None:
        """Unload models that were unused for too long; those of the start stay until their place is needed."""
        while True:
            next_look = None
            for slot in self.slots.values():
                left = slot.expires_in(self._idle_limit)
                if left is None:
                    continue
                if left <= 0 and not slot.is_lent:
                    self.spawn(self.unload(slot, "unused"))
                else:
                    slot.is_lent = False
                    next_look = min(max(left, LENT_PAUSE), next_look or max(left, LENT_PAUSE))
            await self.change(next_look)


def refusal_of(slot: Slot, reason: str, seconds: float) -> Refusal:
    """Return the answer to requests for a model that cannot be loaded; they may be repeated after so many seconds."""
    return unavailable(f"{slot.label} cannot be loaded: {reason}", retry_after=max(1, round(seconds)))


async def _card(client: HostLink) -> dict[str, object]:
    """Return the card that the host of a model has in /v1/models."""
    try:
        raw = await client.get(MODELS, CARD_TIMEOUT)
    except TimeoutError:
        raise Unresponsive(f"its process did not respond within {CARD_TIMEOUT:.0f} s") from None
    found = object_of(json.loads(raw)).get("data")
    return dict(object_of(found[0])) if isinstance(found, list) and found else {}
