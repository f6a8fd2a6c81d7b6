"""Decide from a few records whether two models answer alike: exact intervals that hold at whichever look one stops."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from typing import Literal

import numpy as np
from numpy.typing import NDArray

FIRST_LOOK = 64  # records; every look has twice as many as the one before
LEVEL = 0.05  # the chance that an interval misses, over all looks together
STEPS = 50  # of a bisection: 1e-15
Decision = Literal["alike", "different", "undecided"]


@dataclass(frozen=True)
class Interval:
    """The shares from `low` to `high`."""

    low: float
    high: float


def looks(n: int) -> list[int]:
    """Return after how many of n records one looks: 64, 128, 256 and so on, and at the end."""
    sizes = []
    size = FIRST_LOOK
    while size < n:
        sizes.append(size)
        size *= 2
    return [*sizes, n]


def interval_at(n_hits: int, n: int, n_looks: int) -> Interval:
    """Return the interval of a share after one of `n_looks` looks.

    Each look may miss with LEVEL / n_looks (Bonferroni), so that with a chance of at least 1 - LEVEL none of them does, whatever the rule
    is by which one stops.
    """
    return clopper_pearson(n_hits, n, LEVEL / n_looks)


def decide(share: Interval, tolerance: float) -> Decision:
    """Return "alike" where the share of answers that differ is at most `tolerance` for certain, "different" where it is above."""
    if share.high <= tolerance:
        return "alike"
    return "different" if share.low > tolerance else "undecided"


@lru_cache(maxsize=4096)
def clopper_pearson(n_hits: int, n: int, level: float) -> Interval:
    """Return the exact interval of a share of which `n_hits` of n were seen, that misses with `level` at most.

    Clopper and Pearson, Biometrika 26 (1934): the shares with which neither so many hits nor so few are rarer than level / 2.
    """
    if not n:
        return Interval(0.0, 1.0)
    low = 0.0 if n_hits == 0 else _solve(lambda p: 1 - _at_most(n_hits - 1, n, p), level / 2)
    high = 1.0 if n_hits == n else _solve(lambda p: -_at_most(n_hits, n, p), -level / 2)
    return Interval(low, high)


def mcnemar(n_first: int, n_second: int) -> float:
    """Return the exact two-sided p-value of McNemar's test.

    Of the records that only one of two models has right, the first has `n_first` and the second `n_second`; if both were equally good,
    each would have half of them (McNemar, Psychometrika 12 (1947); a binomial test).
    """
    n = n_first + n_second
    return min(1.0, 2 * _at_most(min(n_first, n_second), n, 0.5)) if n else 1.0


def _solve(rising: Callable[[float], float], value: float) -> float:
    """Return where a function of 0 to 1 that rises has a value."""
    low, high = 0.0, 1.0
    for _ in range(STEPS):
        middle = (low + high) / 2
        low, high = (middle, high) if rising(middle) < value else (low, middle)
    return (low + high) / 2


def _at_most(n_hits: int, n: int, p: float) -> float:
    """Return the chance of at most `n_hits` of n with probability p each."""
    k = np.arange(n_hits + 1)
    logs = _choices(n)[: n_hits + 1] + k * np.log(p) + (n - k) * np.log1p(-p)
    return float(np.exp(logs).sum())


@lru_cache(maxsize=64)
def _choices(n: int) -> NDArray[np.float64]:
    """Return the logarithm of how many ways there are to choose 0 to n of n."""
    factorials = np.concatenate([[0.0], np.cumsum(np.log(np.arange(1, n + 1)))])
    return np.asarray(factorials[n] - factorials - factorials[::-1])
