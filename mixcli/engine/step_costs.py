"""What a step costs by the tokens that it computes, from the engine's own steps: what verifying drafts of each length takes.

In a mixture of experts a few tokens more read experts of their own, and many read what is read anyway, so the cost is not linear: 8 tokens of Mixtral
8x7B read 3.6 times the experts of one, and 64 tokens 4 times. So a plan's curve is taken, and corrected by what was measured near each size.
"""

from bisect import bisect_left
from collections.abc import Sequence
from math import log2

from profiles.acceptance import STEP_SIZES

KEEP = 0.8  # share of the old value in a running mean
UNPLANNED = 0.3  # of a plain step that each token more adds, where no plan says it


class StepCosts:
    """Seconds of steps by their number of tokens; one object for all requests of an engine."""

    def __init__(self, planned: Sequence[float] = ()) -> None:
        """`planned` has the cost of a step of each of STEP_SIZES tokens, in steps of one token."""
        self._planned = tuple(planned) or tuple(1 + UNPLANNED * (n - 1) for n in STEP_SIZES)
        self._measured: dict[
            int, float
        ] = {}  # by the nearest power of two: seconds for each unit of the plan's curve

    @property
    def is_known(self) -> bool:
        """Return whether any step was measured: without one, there are no seconds."""
        return bool(self._measured)

    def observe(self, n_tokens: int, seconds: float) -> None:
        """Learn from a step that computed so many tokens for requests that write."""
        if n_tokens < 1 or seconds <= 0:
            return
        size, unit = round(log2(n_tokens)), seconds / self._curve(n_tokens)
        old = self._measured.get(size)
        self._measured[size] = unit if old is None else KEEP * old + (1 - KEEP) * unit

    def seconds(self, n_tokens: int) -> float:
        """Return the seconds of a step of so many tokens, as the plan's curve and the nearest measured sizes have it."""
        at, sizes = log2(n_tokens), sorted(self._measured)
        place = bisect_left(sizes, at)
        near = sizes[max(0, place - 1) : place + 1]
        if len(near) == 1 or at <= near[0]:
            unit = self._measured[near[0]]
        else:
            low, high = near
            share = (at - low) / (high - low)
            unit = self._measured[low] * (1 - share) + self._measured[high] * share
        return unit * self._curve(n_tokens)

    def _curve(self, n_tokens: int) -> float:
        """Return the planned cost between those of STEP_SIZES, and in proportion beyond the last."""
        if n_tokens >= STEP_SIZES[-1]:
            return self._planned[-1] * n_tokens / STEP_SIZES[-1]
        place = bisect_left(STEP_SIZES, n_tokens)
        if STEP_SIZES[place] == n_tokens:
            return self._planned[place]
        low, high = STEP_SIZES[place - 1], STEP_SIZES[place]
        share = (n_tokens - low) / (high - low)
        return self._planned[place - 1] * (1 - share) + self._planned[place] * share
