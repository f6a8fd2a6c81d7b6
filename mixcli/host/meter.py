"""What a host reports of its engine while it works: how many requests it has, how fast it is, and what its cache holds."""

import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager

from mixcli.engine.engine import Engine
from mixcli.engine.sequence import Output
from mixcli.host.metrics import HostMetrics
from mixcli.host.protocol.health import HostCounts, HostUse
from mixcli.host.protocol.host_spec import LoadPlan
from mixcli.host.rates import RecentRate
from mixcli.llama.loading import Loaded


class EngineMeter:
    """Reads one engine, which steps in one thread while another one asks; there is nothing to report before `begin`."""

    def __init__(self, metrics: HostMetrics) -> None:
        self._metrics = metrics
        self._engine: Engine | None = None
        self._memory: Mapping[str, int] = {}
        self._busy_since: float | None = None  # on the clock of time.monotonic
        self._prefill, self._decode = RecentRate(), RecentRate()

    def begin(self, engine: Engine, order: LoadPlan, loaded: Loaded) -> None:
        """Take the engine of a model that was loaded as ordered, or with the next smaller plan."""
        plan = order.smaller if loaded.is_smaller and order.smaller else order
        self._memory = {device: sum(parts.values()) for device, parts in plan.expected.items()}
        self._engine = engine

    @contextmanager
    def timed(self) -> Iterator[None]:
        """Count a block of the engine's thread as one step, which `use` reports while it runs."""
        self._busy_since = time.monotonic()
        try:
            yield
        finally:
            self._busy_since = None

    def step(self, engine: Engine) -> list[Output]:
        """Let the engine step, and count what it computed."""
        began, n_prompt = time.monotonic(), engine.n_prompt_tokens_done
        outputs = engine.step()
        now = time.monotonic()
        self._prefill.add(engine.n_prompt_tokens_done - n_prompt, began, now)
        self._decode.add(sum(len(output.token_ids) for output in outputs), began, now)
        return outputs

    def counts(self, n_threads: int) -> HostCounts:
        """Return what runs, waits and was done; decode has so many threads now."""
        engine = self._engine
        if engine is None:
            return HostCounts()
        return HostCounts(
            engine.n_running,
            engine.n_waiting,
            engine.n_done,
            engine.n_prompt_tokens_done,
            n_threads,
        )

    def use(self) -> HostUse:
        """Return how fast the engine is, and what its cache and its devices hold."""
        if self._engine is None:
            return HostUse()
        n_used, n_cells = self._engine.kv_cells
        n_prompt, n_cached = self._metrics.prompt_tokens
        return HostUse(
            round(self._prefill.per_second(), 1),
            round(self._decode.per_second(), 1),
            n_cells,
            n_used,
            n_prompt,
            n_cached,
            self._memory,
            self._step_seconds(),
        )

    def _step_seconds(self) -> float:
        since = self._busy_since  # the engine's thread may end the step now
        return 0.0 if since is None else round(time.monotonic() - since, 1)
