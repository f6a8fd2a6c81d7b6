"""Choose the experts for one GPU: whole layers, and at most one split layer, to save the most time.

Layers of one size are alike, so what is searched is how many of each size a GPU takes, not which: exact and quick.
"""

from bisect import bisect
from collections.abc import Iterator, Sequence
from functools import cached_property
from itertools import product
from operator import le, mul
from typing import Any, NamedTuple, TypeVar

from profiles.prices import Parts, Price, Prices, Split

T = TypeVar("T", bound=tuple[Any, ...])

MAX_SIZES = 3  # sizes of layers that are searched exactly; of more, the smaller ones are filled greedily
MAX_POINTS = 64  # of a trade between seconds and bytes that are followed


class Choice(NamedTuple):
    """Experts for one GPU: seconds saved, bytes, how many layers of each size whole, and which part of one more (its size's place in the order, its matrices)."""

    saved: float
    n_bytes: int
    whole: tuple[int, ...]
    split: tuple[int, Parts] | None = None


class Packer:
    """Packs the experts of one GPU."""

    def __init__(
        self,
        prices: Prices,
        gpu: int,
        ways: tuple[Parts, ...],
        *,
        tight: bool,
        most: tuple[tuple[int, ...], int] | None = None,
    ) -> None:
        """Take the prices, and the ways in which a layer may be split. `tight`: host memory is short, so bytes count beside seconds.

        `most` are the most layers of each size, and the largest room, that are asked about; only where that is done many times.
        """
        self._tight, self._asked = tight, most
        self.whole, self.splits = prices.whole(gpu), prices.splits(gpu, ways)
        self._bytes = [n_bytes for n_bytes, _ in self.whole]
        self._saved = [saved for _, saved in self.whole]

    def all_of(self, counts: tuple[int, ...], room: int) -> list[Choice]:
        """Return the choice of all layers, when they fit; `counts` says how many there are of each size."""
        n_bytes = sum(map(mul, counts, self._bytes))
        return [Choice(sum(map(mul, counts, self._saved)), n_bytes, counts)] if n_bytes <= room else []

    def some_of(self, counts: tuple[int, ...], room: int) -> list[Choice]:
        """Return the choice that saves most among those that leave something behind; when tight, all of which no other is better in both."""
        return undominated(list(self._candidates(counts, room)), tight=self._tight)

    def _candidates(self, counts: tuple[int, ...], room: int) -> Iterator[Choice]:
        if self._tight:
            return self._points(counts, room)
        if sum(map(mul, counts, self._bytes)) > room:
            best = self._table.best(counts, room) if self._table else None
            return self._best_points(counts, room) if best is None else iter((best,))
        all_save = all(saved > 0 for n, saved in zip(counts, self._saved, strict=True) if n)
        return self._almost_all(counts) if all_save else self._points(counts, room)

    @cached_property
    def _table(self) -> "_Table | None":
        """Return what saves most for any room, where that is worth working out."""
        if self._asked is None or len(self.whole) >= MAX_SIZES:
            return None
        return _Table(self.whole, self.splits, *self._asked)

    def _almost_all(self, counts: tuple[int, ...]) -> Iterator[Choice]:
        """Yield what saves most where all would fit and one layer at least must stay or be split; every whole layer saves something."""
        total, size = sum(map(mul, counts, self._saved)), sum(map(mul, counts, self._bytes))
        for i, there in enumerate(counts):
            if there:
                n_bytes, saved = self.whole[i]
                whole = (*counts[:i], there - 1, *counts[i + 1 :])
                yield Choice(total - saved, size - n_bytes, whole)
                for at, parts, split_bytes, split_saved in self.splits:
                    if at == i and split_saved > 0:
                        yield Choice(
                            total - saved + split_saved, size - n_bytes + split_bytes, whole, (i, parts)
                        )

    def _best_points(self, counts: tuple[int, ...], room: int) -> Iterator[Choice]:
        """Yield what saves most without a split layer and with each split: all that matters where host memory is not short."""
        yield Choice(*self._most(counts, room))
        for i, parts, split_bytes, split_saved in self.splits:
            if counts[i] and split_bytes <= room and split_saved > 0:
                rest = (*counts[:i], counts[i] - 1, *counts[i + 1 :])
                saved, n_bytes, whole = self._most(rest, room - split_bytes)
                yield Choice(saved + split_saved, n_bytes + split_bytes, whole, (i, parts))

    def _most(self, counts: tuple[int, ...], room: int) -> tuple[float, int, tuple[int, ...]]:
        """Return seconds, bytes and layers of each size of the combination of _wholes that saves most.

        It runs tens of thousands of times for a plan on several GPUs, so its inner loops make no objects.
        """
        searched = min(len(counts), MAX_SIZES) - 1
        sizes = [(n, *one) for n, one in zip(counts, self.whole, strict=True)]
        outer, tail = sizes[:searched], sizes[searched:]
        there, size, gain = outer.pop() if outer else (0, 1, 0.0)
        best: tuple[float, int, tuple[int, ...]] = (-1.0, 0, ())
        for first in product(*(range(min(n, room // n_bytes), -1, -1) for n, n_bytes, _ in outer)):
            free = room - sum(n * one[1] for n, one in zip(first, outer, strict=True))
            before = sum(n * one[2] for n, one in zip(first, outer, strict=True))
            for n in range(min(there, free // size), -1, -1):  # none where too much is taken already
                left, saved = free - n * size, before + n * gain
                for most, tail_size, tail_gain in tail:
                    if tail_gain > 0:
                        fitting = min(most, left // tail_size)
                        left -= fitting * tail_size
                        saved += fitting * tail_gain
                if (saved, room - left) > best[:2]:
                    best = saved, room - left, (*first, n)
        saved, n_bytes, taken = best
        whole = taken[:searched]
        left = room - sum(n * one[1] for n, one in zip(whole, sizes, strict=False))
        for most, tail_size, tail_gain in tail:
            fitting = min(most, left // tail_size) if tail_gain > 0 else 0
            left -= fitting * tail_size
            whole = (*whole, fitting)
        return saved, n_bytes, whole

    def _points(self, counts: tuple[int, ...], room: int) -> Iterator[Choice]:
        for whole, n_bytes, saved in self._wholes(counts, room):
            if whole != counts:
                yield Choice(saved, n_bytes, whole)
        for i, parts, split_bytes, split_saved in self.splits:
            if counts[i] and split_bytes <= room and (self._tight or split_saved > 0):
                rest = (*counts[:i], counts[i] - 1, *counts[i + 1 :])
                for whole, n_bytes, saved in self._wholes(rest, room - split_bytes):
                    yield Choice(saved + split_saved, n_bytes + split_bytes, whole, (i, parts))

    def _wholes(self, counts: tuple[int, ...], room: int) -> Iterator[tuple[tuple[int, ...], int, float]]:
        """Yield the combinations that may be best: all counts of the first sizes, and of the rest as many as fit and pay."""
        searched = min(len(counts), MAX_SIZES) - 1
        *first_prices, (last, last_gain) = self.whole
        most = (min(n, room // size) for n, (size, _) in zip(counts[:searched], first_prices, strict=False))
        for first in product(*(range(n, -1, -1) for n in most)):
            n_bytes, saved = 0, 0.0
            rest = first
            for n, (size, gain) in zip(first, first_prices, strict=False):
                n_bytes += n * size
                saved += n * gain
            if n_bytes > room:
                continue
            for there, (size, gain) in zip(counts[searched:], self.whole[searched:], strict=True):
                n = min(there, (room - n_bytes) // size) if self._tight or gain > 0 else 0
                rest = (*rest, n)
                n_bytes += n * size
                saved += n * gain
            yield rest, n_bytes, saved
            if self._tight and last_gain <= 0:  # each one costs seconds, so fewer may be better
                for less in range(1, rest[-1] + 1):
                    yield (*rest[:-1], rest[-1] - less), n_bytes - less * last, saved - less * last_gain
            elif rest == counts and rest[-1]:  # all of them is another question
                yield (*rest[:-1], rest[-1] - 1), n_bytes - last, saved - last_gain


class _Table:
    """What saves most in each room, whatever there is of each size: worked out once, for many questions."""

    def __init__(
        self,
        whole: Sequence[Price],
        splits: Sequence[Split],
        counts: tuple[int, ...],
        room: int,
    ) -> None:
        wholes = [Choice(0.0, 0, ())]
        for most, (size, gain) in zip(counts, whole, strict=True):
            wholes = [
                Choice(saved + n * gain, n_bytes + n * size, (*taken, n))
                for saved, n_bytes, taken, _ in wholes
                for n in range(min(most, (room - n_bytes) // size) + 1 if gain > 0 else 1)
            ]
        wholes = _ascending(wholes)  # a split layer on top changes nothing about which of them are worth it
        found = list(wholes)
        for i, parts, split_bytes, split_saved in splits:
            if split_saved > 0:
                found += [
                    Choice(saved + split_saved, n_bytes + split_bytes, taken, (i, parts))
                    for saved, n_bytes, taken, _ in wholes
                    if n_bytes + split_bytes <= room
                ]
        self._best = _ascending(found)
        self._sizes = [choice.n_bytes for choice in self._best]
        self._taken = [  # layers of each size, the split one among them
            tuple(n + (one.split is not None and one.split[0] == i) for i, n in enumerate(one.whole))
            for one in self._best
        ]

    def best(self, counts: tuple[int, ...], room: int) -> Choice | None:
        """Return the choice for a room; None where it takes more layers of a size than there are."""
        at = bisect(self._sizes, room) - 1
        return self._best[at] if all(map(le, self._taken[at], counts)) else None


def _ascending(choices: list[Choice]) -> list[Choice]:
    """Return the choices that save more than every smaller one, by size; of equals the first."""
    choices.sort(key=lambda choice: (choice.n_bytes, -choice.saved))
    found: list[Choice] = []
    most = (-1.0, 0)
    for choice in choices:
        if choice[:2] > most:
            most = choice[:2]
            found.append(choice)
    return found


def undominated(points: list[T], *, tight: bool) -> list[T]:
    """Return the point that saves most, or all those of (seconds saved, bytes, ...) that no other beats in both."""
    if not points:
        return []
    if not tight:
        return [max(points, key=lambda point: point[:2])]
    found: list[T] = []
    for point in sorted(points, key=lambda point: point[:2], reverse=True):
        if not found or point[1] > found[-1][1]:
            found.append(point)
    if len(found) > MAX_POINTS:
        last = len(found) - 1
        found = [found[i * last // (MAX_POINTS - 1)] for i in range(MAX_POINTS)]
    return found
