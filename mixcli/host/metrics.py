"""What a host counts for Prometheus, by the names that vLLM's dashboards know, with mixcli in front.

Counting costs an addition; prometheus_client, which takes a tenth of a second to import, writes the page when it is asked for.
"""

import time
from bisect import bisect_left
from collections import Counter
from collections.abc import Iterator
from typing import TYPE_CHECKING

from mixcli.engine.sequence import Output, Usage
from mixcli.host.protocol.health import HostCounts, HostUse

if TYPE_CHECKING:
    from prometheus_client import Metric

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"
FIRST_TOKEN = (0.01, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120, 300)  # seconds
BETWEEN_TOKENS = (0.005, 0.01, 0.02, 0.03, 0.05, 0.075, 0.1, 0.15, 0.2, 0.3, 0.5, 1, 2.5)
WHOLE_ANSWER = (0.1, 0.5, 1, 2.5, 5, 10, 30, 60, 120, 300, 600, 1800)


class Durations:
    """How many durations fell into each bucket; `bounds` are the upper ends in seconds, ascending."""

    def __init__(self, help_: str, bounds: tuple[float, ...]) -> None:
        self.help, self.bounds = help_, bounds
        self._counts = [0] * (len(bounds) + 1)
        self.seconds = 0.0

    def add(self, seconds: float, n: int = 1) -> None:
        """Count `n` durations of so many seconds each."""
        self._counts[bisect_left(self.bounds, seconds)] += n
        self.seconds += seconds * n

    def cumulative(self) -> list[tuple[str, float]]:
        """Return (upper end, durations up to it), as Prometheus has it."""
        total, found = 0, []
        for bound, n in zip((*map(str, self.bounds), "+Inf"), self._counts, strict=True):
            total += n
            found.append((bound, float(total)))
        return found


class HostMetrics:
    """Counts and times of one host, counted in the engine's thread."""

    def __init__(self) -> None:
        self._last: dict[str, float] = {}  # when a request last brought a token
        self._ended: Counter[str] = Counter()  # requests by the reason of their end
        self._tokens = {
            "prompt_tokens": ("Prompt tokens of requests that ended, cached ones included.", 0),
            "prompt_tokens_cached": ("Prompt tokens that were found in the KV cache.", 0),
            "generation_tokens": ("Tokens that were generated.", 0),
        }
        self._times = {
            "time_to_first_token": Durations(
                "From the arrival of a request to its first token.", FIRST_TOKEN
            ),
            "inter_token_latency": Durations("From one token of an answer to the next.", BETWEEN_TOKENS),
            "request_queue_time": Durations("Time in the queue.", FIRST_TOKEN),
            "e2e_request_latency": Durations("From the arrival of a request to its end.", WHOLE_ANSWER),
        }

    def observe(self, output: Output) -> None:
        """Record what one step gave for a request."""
        if n := len(output.token_ids):
            now, before = time.monotonic(), self._last.get(output.id)
            self._last[output.id] = now
            self._count("generation_tokens", n)
            if before is not None:
                self._times["inter_token_latency"].add((now - before) / n, n)
        if output.is_last:
            self._last.pop(output.id, None)
            self._ended[output.finish_reason or "error"] += 1
            if output.usage is not None:
                self._account(output.usage)

    @property
    def prompt_tokens(self) -> tuple[int, int]:
        """Return the prompt tokens of requests that ended: all, and those that were found in the KV cache."""
        return self._tokens["prompt_tokens"][1], self._tokens["prompt_tokens_cached"][1]

    def page(self, now: HostCounts, use: HostUse) -> bytes:
        """Return all of it, and what runs, waits and is held now, in Prometheus' text form."""
        from prometheus_client import CollectorRegistry, generate_latest

        registry = CollectorRegistry()
        registry.register(_Collector(self, now, use))
        return generate_latest(registry)

    def families(self) -> "Iterator[Metric]":
        """Yield what was counted."""
        from prometheus_client.core import CounterMetricFamily, HistogramMetricFamily

        for name, (text, n) in self._tokens.items():
            yield CounterMetricFamily(f"mixcli_{name}", text, value=n)
        ended = CounterMetricFamily("mixcli_requests", "Requests that ended.", labels=["finished_reason"])
        for reason, n in list(self._ended.items()):
            ended.add_metric([reason], n)
        yield ended
        for name, times in self._times.items():
            yield HistogramMetricFamily(
                f"mixcli_{name}_seconds", times.help, times.cumulative(), times.seconds
            )

    def _count(self, name: str, n: int) -> None:
        text, before = self._tokens[name]
        self._tokens[name] = text, before + n

    def _account(self, cost: Usage) -> None:
        self._count("prompt_tokens", cost.n_prompt)
        self._count("prompt_tokens_cached", cost.n_cached)
        self._times["request_queue_time"].add(cost.seconds_queue)
        first = cost.seconds_queue + cost.seconds_prefill
        if cost.n_generated:
            self._times["time_to_first_token"].add(first)
        self._times["e2e_request_latency"].add(first + cost.seconds_decode)


class _Collector:
    """What one page shows."""

    def __init__(self, metrics: HostMetrics, now: HostCounts, use: HostUse) -> None:
        self._metrics, self._now, self._use = metrics, now, use

    def collect(self) -> "Iterator[Metric]":
        from prometheus_client.core import GaugeMetricFamily

        for name, text, value in (
            ("num_requests_running", "Running requests.", self._now.n_running),
            ("num_requests_waiting", "Requests in the queue.", self._now.n_waiting),
            (
                "kv_cache_usage_ratio",
                "Share of the KV cache's cells that are in use, from 0 to 1.",
                self._use.kv_usage or 0.0,
            ),
        ):
            yield GaugeMetricFamily(f"mixcli_{name}", text, value=value)
        yield from self._metrics.families()
