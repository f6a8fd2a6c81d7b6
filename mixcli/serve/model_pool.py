"""Several models in limited memory, assigned to requests: each is loaded when one wants it, and others are unloaded for it.

Loads are decided one at a time, in the order in which they were first wanted. Where a load needs the place of a model that answers, it
waits for these answers; requests that come later for that model wait behind the load, so two models that do not fit together take turns:
each turn answers all requests that had come for it. Meanwhile models are loaded that need no other's place.
"""

import asyncio
import contextlib
import time
from collections.abc import AsyncGenerator, Awaitable, Callable, Sequence

from mixcli.errors import DoesNotFit
from mixcli.serve.eviction import Ledger, Resident, fits, to_unload
from mixcli.serve.host_link import HostLink
from mixcli.serve.loader import Planned, in_thread
from mixcli.serve.model_lifecycle import LENT_PAUSE, ModelLifecycle, refusal_of
from mixcli.serve.model_state import Slot, State, Unavailable, Waiter
from mixcli.serve.refusal import Refusal, unavailable
from mixcli.system.formatting import counted, format_bytes

MAX_WAIT = 120.0  # seconds that a request waits until there is memory for its model; loading takes as long as it takes
TICK = 1.0  # seconds between two comments in a stream that waits

Tell = Callable[[str], Awaitable[None]]


class ModelPool:
    """Assigns the models of a port to requests."""

    def __init__(self, lifecycle: ModelLifecycle) -> None:
        self._lifecycle, self._slots = lifecycle, lifecycle.slots
        self._draining: frozenset[str] = frozenset()  # models whose place the load needs that is decided now

    def start(self) -> None:
        """Begin to load and unload."""
        self._lifecycle.spawn(self._admit_all())
        self._lifecycle.spawn(self._lifecycle.expire())

    @contextlib.asynccontextmanager
    async def lease(self, label: str, tell: Tell) -> AsyncGenerator[HostLink]:
        """Hold a model loaded while the block runs, and give the client of its host; `tell` gets what is waited for, every TICK.

        Raises Unavailable where it cannot be loaded, or not in time.
        """
        slot = self._slots[label]
        client = await self._acquire(slot, tell)
        try:
            yield client
        finally:
            slot.n_running -= 1
            slot.last_used = time.monotonic()
            self._lifecycle.wake()

    async def lost(self, label: str, client: HostLink) -> None:
        """Record that a host did not take a request; where its process has ended, the next request loads its model again."""
        slot, loader = self._slots[label], self._lifecycle.loader
        host = slot.host if slot.client is client else None
        if host is None or await in_thread(lambda: loader.answers(host)):
            return
        if slot.host is host and slot.state is State.LOADED:
            unloading = self._lifecycle.unload(slot, "its process crashed", anyway=True)
            await asyncio.shield(
                self._lifecycle.spawn(unloading)
            )  # it must end, also where this client leaves

    async def preload(self, label: str, *, only_beside: bool = False) -> None:
        """Load a model at the start; with `only_beside` only where it fits beside what is loaded. Raises why it cannot be loaded."""
        slot = self._slots[label]
        if only_beside and not fits(slot.model.needs, self._lifecycle.memory(slot).left):
            return
        slot.is_lasting = True
        try:
            async with self.lease(label, _tell_nobody):
                pass
        except Unavailable as error:
            slot.is_lasting = False
            raise slot.failure.error if slot.failure else error from error

    # requests

    async def _acquire(self, slot: Slot, tell: Tell) -> HostLink:
        if slot.state is State.LOADED and slot.label not in self._draining:
            return slot.lend()
        if (failure := slot.failure) and (left := failure.retry_at - time.monotonic()) > 0:
            raise Unavailable(refusal_of(slot, failure.reason, left))
        waiter = Waiter(asyncio.get_running_loop().create_future())
        slot.waiters.append(waiter)
        self._lifecycle.wake()
        try:
            return await self._granted(slot, waiter, tell)
        except BaseException:
            future = waiter.future
            if future.done() and not future.cancelled() and future.exception() is None:
                slot.n_running -= 1  # it was assigned at the moment when its client left
            raise
        finally:
            if waiter in slot.waiters:
                slot.waiters.remove(waiter)
            self._lifecycle.wake()

    async def _granted(self, slot: Slot, waiter: Waiter, tell: Tell) -> HostLink:
        """Wait for the model; a request that waited MAX_WAIT for memory is refused, or let in where its model is still loaded."""
        left = MAX_WAIT
        while not waiter.future.done():
            if left <= 0 and slot.state is State.LOADED:
                slot.waiters.remove(waiter)
                waiter.future.set_result(slot.lend())
                break
            if left <= 0:
                raise Unavailable(self._no_memory(slot))
            await asyncio.wait({waiter.future}, timeout=min(TICK, left))
            if not waiter.future.done():
                left -= 0.0 if slot.state is State.LOADING else min(TICK, left)
                await tell(self._waits_for(slot))
        return waiter.future.result()

    def _waits_for(self, slot: Slot) -> str:
        if slot.state is State.LOADING:
            return f"loading {100 * slot.progress:.0f} %"
        return f"waiting for memory: {self._answering()}"

    def _answering(self) -> str:
        busy = [slot for slot in self._slots.values() if slot.n_running]
        said = (f"{slot.label} answers {counted(slot.n_running, 'request')}" for slot in busy)
        return ", ".join(said) or "other models are being loaded or unloaded"

    def _no_memory(self, slot: Slot) -> Refusal:
        memory, needs = self._lifecycle.memory(slot), sum(slot.model.needs.values())
        free = sum(max(0, n_bytes) for n_bytes in memory.left.values())
        return unavailable(
            f"no memory for {slot.label} within {MAX_WAIT:.0f} s: it takes {format_bytes(needs)}, {format_bytes(free)} "
            f"of {format_bytes(sum(memory.limits.values()))} are free, and {self._answering()}; retry later",
            retry_after=10,
        )

    # loads

    async def _admit_all(self) -> None:
        """Begin the loads that are wanted, one after the other; a load itself runs beside the next decision."""
        while True:
            self._let_in()
            wanted = self._wanted()
            if not wanted:
                await self._lifecycle.change()
                continue
            slot = wanted[0]
            try:
                await self._admit(slot)
            except Exception as error:
                self._lifecycle.fail(slot, error)
            finally:
                self._draining = frozenset()

    def _wanted(self) -> list[Slot]:
        """Return the models that are not loaded and that requests wait for, those first that have been waited for longest."""
        wanted = [slot for slot in self._slots.values() if slot.waiters and slot.state is State.UNLOADED]
        return sorted(wanted, key=lambda slot: slot.waiters[0].since)

    def _let_in(self) -> None:
        """Let requests have the loaded models that they wait for, but for models that are to be unloaded next."""
        for slot in self._slots.values():
            if slot.state is State.LOADED and slot.label not in self._draining:
                slot.admit_waiters()

    async def _admit(self, slot: Slot) -> None:
        """Free some space for a model and begin its load; return without where no request waits for it any more. Raises why it does not fit."""
        left: Ledger | None = None
        planned: Planned | None = None
        why: Exception | None = None
        while slot.waiters:
            self._let_in()
            if any(one.state is State.UNLOADING for one in self._slots.values()):
                await self._lifecycle.change()
                continue
            if (now := self._lifecycle.memory(slot).left) != left:
                left = now
                planned, why = await self._planned(slot, left)
                if why is not None and getattr(why, "exit_code", 1) != DoesNotFit.exit_code:
                    raise why  # more memory would not help
                continue  # something may have changed meanwhile
            residents = self._lifecycle.residents(slot)
            going = () if planned and planned.is_whole else self._going(slot, residents)
            if going:
                await self._make_room(slot, going)
            elif planned is None:
                raise why or DoesNotFit(f"{slot.label} does not fit beside the models of --keep")
            else:
                self._lifecycle.load(slot, planned)
                return

    async def _planned(self, slot: Slot, left: Ledger) -> tuple[Planned | None, Exception | None]:
        """Return the plan for what is left of the memory, or why there is none; what cannot fit is not planned."""
        if sum(left.values()) < min(slot.model.size, sum(slot.model.needs.values())):
            return None, None
        try:
            return await in_thread(lambda: self._lifecycle.loader.plan(slot.model, left)), None
        except Exception as error:
            return None, error

    def _going(self, slot: Slot, residents: Sequence[Resident]) -> tuple[Resident, ...]:
        """Return what is unloaded for a model that does not fit well; where its ledger fits, other programs take memory, and the oldest idle one goes."""
        found = to_unload(slot.model.needs, self._lifecycle.memory().limits, residents)
        if found is None or found:
            return found or ()
        idle = [one for one in residents if not (one.is_kept or one.is_busy)]
        return tuple(sorted(idle, key=lambda one: one.last_used)[:1])

    async def _make_room(self, slot: Slot, going: Sequence[Resident]) -> None:
        """Unload these models once they are idle; return before where something else has changed the choice."""
        self._draining = frozenset(one.name for one in going)
        slots = [self._slots[one.name] for one in going]
        if lent := [one for one in slots if one.is_lent]:
            await self._lifecycle.change(LENT_PAUSE)
            for one in lent:
                one.is_lent = False
        elif any(one.is_busy for one in going):
            if not await self._load_beside(slot):
                await self._lifecycle.change()
        else:
            await asyncio.gather(*(self._lifecycle.unload(one, f"for {slot.label}") for one in slots))

    async def _load_beside(self, first: Slot) -> bool:
        """Begin the load of another model that fits into what is left now, while the `first` one waits for its place; return whether there was one."""
        for slot in self._wanted():
            left = self._lifecycle.memory(slot).left
            if slot is first or not fits(slot.model.needs, left):
                continue
            planned, _ = await self._planned(slot, left)
            is_still_wanted = slot.waiters and slot.state is State.UNLOADED
            if planned and planned.is_whole and is_still_wanted and self._lifecycle.memory(slot).left == left:
                self._lifecycle.load(slot, planned)
                return True
        return False


async def _tell_nobody(_text: str) -> None:
    """Receive what is waited for."""
