"""Choose the experts for one GPU: whole layers, and at most one split layer, to save the most time.

Layers of one size are alike, so what is searched is how many of each size a GPU takes, not which: exact and quick.
"""

from bisect import bisect
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import product
from typing import Any, NamedTuple, TypeVar

from profiles.shape import MATRICES, LayerShape
from profiles.speed import Rates

Parts = tuple[int, int, int]
T = TypeVar("T", bound=tuple[Any, ...])

WHOLE: Parts = (1, 1, 1)
MAX_SIZES = 3  # sizes of layers that are searched exactly; of more, the smaller ones are filled greedily
MAX_POINTS = 64  # of a trade between seconds and bytes that are followed


class Price(NamedTuple):
    """Experts on a GPU: their bytes, and the seconds that this saves."""

    n_bytes: int
    saved: float


class Split(NamedTuple):
    """A way to split a layer: the place of its size in the order, the matrices that go to the GPU, their bytes, the seconds saved."""

    size: int
    parts: Parts
    n_bytes: int
    saved: float


class Choice(NamedTuple):
    """Experts for one GPU: seconds saved, bytes, whole layers of each size, and the layer that is split."""

    saved: float
    n_bytes: int
    whole: tuple[int, ...]
    split: tuple[int, Parts] | None = None


@dataclass(frozen=True)
class Packed:
    """How many layers of each size a GPU takes whole, and which part of one more (its size's place in the order, its matrices)."""

    n_bytes: int = 0
    saved: float = 0.0
    whole: tuple[int, ...] = ()
    split: tuple[int, Parts] | None = None


class Packer:
    """Packs the experts of one GPU; what one room and one choice of layers gave is remembered."""

    def __init__(
        self,
        sizes: Sequence[LayerShape],
        rates: Rates,
        gpu: int,
        splits: Sequence[Parts],
        *,
        tight: bool,
        most: tuple[tuple[int, ...], int] | None = None,
    ) -> None:
        """Take the sizes of layers, the largest first. `tight`: main memory is short, so bytes count beside seconds.

        `most` are the most layers of each size, and the largest room, that are asked about; only where that is done many times.
        """
        host = len(rates.devices) - 1

        def price(layer: LayerShape, parts: Parts) -> Price:
            moved = [number for number, part in enumerate(parts) if part]
            saved = sum(rates.matrix(host, layer, at) - rates.matrix(gpu, layer, at) for at in moved)
            n_bytes = sum(getattr(layer, MATRICES[at]) for at in moved)
            return Price(n_bytes, saved + (2 * rates.hop if all(parts) else 0.0))

        self._tight, self._asked = tight, most
        self.whole = [price(layer, WHOLE) for layer in sizes]
        self.splits = [
            Split(i, parts, *price(layer, parts))
            for i, layer in enumerate(sizes)
            for parts in splits
            if layer.up or parts[0] == parts[1]  # gate and up may be one tensor
        ]
        self._known: dict[tuple[tuple[int, ...], int], list[Packed]] = {}

    def all_of(self, counts: tuple[int, ...], room: int) -> list[Packed]:
        """Return the choice of all layers, when they fit; `counts` says how many there are of each size."""
        n_bytes = sum(n * one.n_bytes for n, one in zip(counts, self.whole, strict=True))
        saved = sum(n * one.saved for n, one in zip(counts, self.whole, strict=True))
        return [Packed(n_bytes, saved, counts)] if n_bytes <= room else []

    def some_of(self, counts: tuple[int, ...], room: int) -> list[Packed]:
        """Return the choice that saves most among those that leave something behind; when tight, all of which no other is better in both."""
        found = self._known.get((counts, room))
        if found is None:
            best = undominated(list(self._candidates(counts, room)), tight=self._tight)
            found = [Packed(one.n_bytes, one.saved, one.whole, one.split) for one in best]
            self._known[counts, room] = found
        return found

    def _candidates(self, counts: tuple[int, ...], room: int) -> Iterator[Choice]:
        if self._tight:
            return self._points(counts, room)
        if sum(n * size for n, (size, _) in zip(counts, self.whole, strict=True)) > room:
            best = self._table.best(counts, room) if self._table else None
            return self._best_points(counts, room) if best is None else iter((best,))
        all_save = all(saved > 0 for n, (_, saved) in zip(counts, self.whole, strict=True) if n)
        return self._almost_all(counts) if all_save else self._points(counts, room)

    @cached_property
    def _table(self) -> "_Table | None":
        """Return what saves most for any room, where that is worth working out."""
        if self._asked is None or len(self.whole) >= MAX_SIZES:
            return None
        return _Table(self.whole, self.splits, *self._asked)

    def _almost_all(self, counts: tuple[int, ...]) -> Iterator[Choice]:
        """Yield what saves most where all would fit and one layer at least must stay or be split; every whole layer saves something."""
        total = sum(n * saved for n, (_, saved) in zip(counts, self.whole, strict=True))
        size = sum(n * n_bytes for n, (n_bytes, _) in zip(counts, self.whole, strict=True))
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


def most_saved(packers: Sequence[Packer], counts: tuple[int, ...], room: int) -> float:
    """Return seconds that GPUs with so much room together cannot save more of: as if layers could be cut, and a split one for each on top."""
    prices = [
        max((packer.whole[i] for packer in packers), key=lambda price: price.saved)
        for i in range(len(counts))
    ]
    saved = gain = 0.0
    for n, (n_bytes, most) in sorted(zip(counts, prices, strict=True), key=lambda one: -_gain(*one[1])):
        if most <= 0:
            break
        taken = min(n * n_bytes, room)
        saved += taken * _gain(n_bytes, most) if n_bytes else n * most
        room -= taken
        if taken < n * n_bytes:
            gain = _gain(n_bytes, most)  # what a split layer takes of the room costs as much
            break
    for packer in packers:
        saved += max(0.0, *(split.saved - gain * split.n_bytes for split in packer.splits), 0.0)
    return saved


def _gain(n_bytes: int, saved: float) -> float:
    return saved / n_bytes if n_bytes else 0.0


class _Table:
    """What saves most in each room, whatever there is of each size: worked out once, for many questions."""

    def __init__(
        self,
        whole: Sequence[Price],
        splits: Sequence[Split],
        counts: tuple[int, ...],
        room: int,
    ) -> None:
        wholes: list[tuple[int, float, tuple[int, ...]]] = [(0, 0.0, ())]
        for most, (size, gain) in zip(counts, whole, strict=True):
            wholes = [
                (n_bytes + n * size, saved + n * gain, (*taken, n))
                for n_bytes, saved, taken in wholes
                for n in range(min(most, (room - n_bytes) // size) + 1 if gain > 0 else 1)
            ]
        found: list[Choice] = [Choice(saved, n_bytes, taken) for n_bytes, saved, taken in wholes]
        for i, parts, split_bytes, split_saved in splits:
            if split_saved > 0:
                found += [
                    Choice(saved + split_saved, n_bytes + split_bytes, taken, (i, parts))
                    for n_bytes, saved, taken in wholes
                    if n_bytes + split_bytes <= room
                ]
        found.sort(key=lambda choice: (choice.n_bytes, -choice.saved))
        self._sizes: list[int] = []
        self._best: list[Choice] = []
        for choice in found:
            if not self._best or choice[:2] > self._best[-1][:2]:  # of equals the first
                self._sizes.append(choice.n_bytes)
                self._best.append(choice)

    def best(self, counts: tuple[int, ...], room: int) -> Choice | None:
        """Return the choice for a room; None where it takes more layers of a size than there are."""
        choice = self._best[bisect(self._sizes, room) - 1]
        split = choice.split
        needed = [n + (split is not None and split[0] == i) for i, n in enumerate(choice.whole)]
        is_there = all(n <= there for n, there in zip(needed, counts, strict=True))
        return choice if is_there else None


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
