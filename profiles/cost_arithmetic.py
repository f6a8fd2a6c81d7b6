"""Records of seconds, of which each field is a cost: all of them times a factor, and two of them added up."""

from collections.abc import Callable, Iterable
from typing import TypeVar

Costs = TypeVar("Costs", bound=tuple[float, ...])  # named tuples of seconds


def times(costs: Costs, factor: float) -> Costs:
    """Return every cost that many times as high."""
    return _alike(costs, (factor * seconds for seconds in costs))


def plus(costs: Costs, other: Costs) -> Costs:
    """Return the costs of both."""
    return _alike(costs, (a + b for a, b in zip(costs, other, strict=True)))


def _alike(costs: Costs, seconds: Iterable[float]) -> Costs:
    make: Callable[[Iterable[float]], Costs] = type(costs)._make  # type: ignore[attr-defined]
    return make(seconds)
