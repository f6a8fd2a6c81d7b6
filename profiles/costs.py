"""Records of seconds, of which each field is a cost: all of them times a factor, and two of them added up."""

from collections.abc import Iterable, Iterator
from typing import Protocol, Self, TypeVar


class Costs(Protocol):
    """A named tuple of seconds."""

    def __iter__(self) -> Iterator[float]: ...

    @classmethod
    def _make(cls, iterable: Iterable[float], /) -> Self: ...


C = TypeVar("C", bound=Costs)


def times(costs: C, factor: float) -> C:
    """Return every cost that many times as high."""
    return costs._make(factor * seconds for seconds in costs)


def plus(costs: C, other: C) -> C:
    """Return the costs of both."""
    return costs._make(a + b for a, b in zip(costs, other, strict=True))
