"""Rates in tok/s over the last seconds, for those who look at a host while it works."""

import time

WINDOW = 5.0  # seconds
N_SLOTS = 20


class RecentRate:
    """The rate of what one thread counts; another one may read it.

    Counts of the last WINDOW seconds are kept, in slots of a part of it each. They are divided by the time since the first of them began, so the rate is
    right from the first step on, and falls to 0 within WINDOW seconds after the last one.
    """

    def __init__(self) -> None:
        self._slots = [(0, 0.0, 0)] * N_SLOTS  # number of the slot, when its first count began, tokens

    def add(self, n_tokens: int, began: float, now: float) -> None:
        """Count tokens that were computed from `began` to `now`, both on the clock of time.monotonic."""
        number = _number(now)
        at, first, n_before = self._slots[number % N_SLOTS]
        is_new = at != number
        self._slots[number % N_SLOTS] = (
            (number, began, n_tokens) if is_new else (number, first, n_before + n_tokens)
        )

    def per_second(self, now: float | None = None) -> float:
        """Return tok/s up to now; 0 where none came in WINDOW seconds."""
        now = time.monotonic() if now is None else now
        oldest = _number(now) - N_SLOTS
        kept = [(began, n) for number, began, n in self._slots if n and number > oldest]
        if not kept:
            return 0.0
        return sum(n for _, n in kept) / max(now - min(began for began, _ in kept), 1e-3)


def _number(now: float) -> int:
    return int(now * N_SLOTS / WINDOW)


__all__ = ["WINDOW", "RecentRate"]
