"""One model of a port with several: whether it is loaded, who waits for it, and what it costs."""

import asyncio
import enum
import time
from collections import Counter
from dataclasses import dataclass, field

from mixcli.serve.eviction import Ledger, Resident
from mixcli.serve.host_link import HostLink
from mixcli.serve.loader import RunningHost
from mixcli.serve.model_names import ServedModel
from mixcli.serve.refusal import Refusal


class State(enum.StrEnum):
    """Where a model is between disk and memory."""

    UNLOADED = "unloaded"
    LOADING = "loading"
    LOADED = "loaded"
    UNLOADING = "unloading"


class Unavailable(Exception):
    """A request cannot have its model now; `refusal` is its answer."""

    def __init__(self, refusal: Refusal) -> None:
        super().__init__(refusal.message)
        self.refusal = refusal


@dataclass(frozen=True)
class Failure:
    """Why the last load failed, and the moment (time.monotonic) from which on the next request tries again."""

    reason: str
    retry_at: float
    error: Exception


@dataclass(eq=False)
class Waiter:
    """A request that waits for its model since a moment; it gets the client of the host."""

    future: "asyncio.Future[HostLink]"
    since: float = field(default_factory=time.monotonic)


@dataclass(eq=False)
class Slot:
    """A model and all that is known of it now; changed in the event loop only, but for `progress`.

    `needs` is what its host takes while it has one. `is_lasting` says that it was loaded at the start, and so is not unloaded for being
    unused. `waiters` are requests that wait for it, in the order of their coming.
    `last_used` is on the clock of time.monotonic.
    """

    model: ServedModel
    state: State = State.UNLOADED
    progress: float = 0.0
    needs: Ledger = field(default_factory=dict)
    host: RunningHost | None = None
    client: HostLink | None = None
    card: dict[str, object] = field(default_factory=dict)
    is_lasting: bool = False
    is_lent: bool = False  # another program uses the host too
    n_running: int = 0
    last_used: float = 0.0
    failure: Failure | None = None
    waiters: list[Waiter] = field(default_factory=list)
    counts: Counter[str] = field(default_factory=Counter)  # loads, failed loads, unloads by reason

    @property
    def label(self) -> str:
        return self.model.label

    @property
    def resident(self) -> Resident:
        """Return it as what takes memory."""
        is_busy = self.n_running > 0 or self.is_lent or self.state is State.LOADING
        return Resident(
            self.label, self.needs or self.model.needs, self.last_used, is_busy, self.model.is_kept
        )

    def expires_in(self, idle_limit: float) -> float | None:
        """Return the seconds until it is unloaded for being unused so long; None while it is used, and where it stays."""
        is_idle = self.state is State.LOADED and not (self.n_running or self.waiters or self.is_lasting)
        return self.last_used + idle_limit - time.monotonic() if is_idle and idle_limit >= 0 else None

    def lend(self) -> HostLink:
        """Count one more request that runs, and return the client of the host."""
        assert self.client is not None
        self.n_running += 1
        return self.client

    def admit_waiters(self) -> None:
        """Let all requests that wait have the loaded model."""
        for waiter in self.waiters:
            if not waiter.future.done():
                waiter.future.set_result(self.lend())
        self.waiters.clear()

    def refuse_waiters(self, refusal: Refusal) -> None:
        """Refuse all requests that wait."""
        for waiter in self.waiters:
            if not waiter.future.done():
                waiter.future.set_exception(Unavailable(refusal))
        self.waiters.clear()
