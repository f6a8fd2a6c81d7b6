"""Assign experts to GPUs so that a workload takes the least time, by dynamic programming over runs of layers.

Costs are sums over layers, so the runs of several GPUs are found by dynamic programming, exactly.
"""

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import accumulate
from typing import Literal, NamedTuple

from profiles.layout import Experts, Layout
from profiles.packing_one_gpu import Packed, Packer, Parts, most_saved, undominated
from profiles.shape import MATRICES, LayerShape
from profiles.speed import Rates

Mode = Literal[
    "all", "some", "none"
]  # of the experts that go to GPUs; only with "none" may attention stay in host memory too

STAY: Parts = (0, 0, 0)
# The matrices of a split layer that may go to the GPU (gate, up, down); "up" alone would cost two more hops than gate alone
SPLITS: tuple[Parts, ...] = ((1, 1, 0), (0, 1, 1), (1, 0, 1), (0, 0, 1), (1, 0, 0))
# Sets of splits that may be taken, one after the other: larger compute buffers come with those that leave "down" behind
SPLIT_SETS: tuple[tuple[Parts, ...], ...] = ((), SPLITS[1:4], SPLITS)


@dataclass(frozen=True)
class Kind:
    """What layouts of one kind have in common: how many experts go to GPUs, and the ways in which a layer may be split for that."""

    mode: Mode
    splits: tuple[Parts, ...] = ()


KINDS = (Kind("all"), Kind("none"), *(Kind("some", splits) for splits in SPLIT_SETS))


@dataclass(frozen=True)
class LayerSizes:
    """What is to be stowed: the layers, the bytes of one layer's cache, and the bytes of the output layer."""

    layers: tuple[LayerShape, ...]
    bytes_kv_layer: int
    bytes_output: int

    @property
    def bytes_weights(self) -> int:
        """Return the bytes of all layers."""
        return sum(layer.attention + layer.experts for layer in self.layers)

    @property
    def n_bytes(self) -> int:
        """Return the bytes of all layers with their caches."""
        return self.bytes_weights + len(self.layers) * self.bytes_kv_layer

    @property
    def bytes_experts(self) -> int:
        """Return the bytes of all experts."""
        return sum(layer.experts for layer in self.layers)

    @cached_property
    def sizes(self) -> tuple[LayerShape, ...]:
        """Return the sizes that layers' experts have, the largest first; layers without experts have none."""
        sizes = {_size(layer) for layer in self.layers if layer.experts}
        return tuple(sorted(sizes, key=lambda layer: -layer.experts))

    @cached_property
    def counts(self) -> list[tuple[int, ...]]:
        """Return how many layers of each size come before each layer."""
        places = {size: at for at, size in enumerate(self.sizes)}
        found = [(0,) * len(self.sizes)]
        for layer in self.layers:
            at = places.get(_size(layer))
            found.append(tuple(n + (i == at) for i, n in enumerate(found[-1])))
        return found

    @cached_property
    def attention_counts(self) -> Counter[int]:
        """Return the bytes that layers' attention has, each with the number of layers."""
        return Counter(layer.attention for layer in self.layers)

    @cached_property
    def attention_before(self) -> tuple[int, ...]:
        """Return the bytes of the attention of all layers before each, and at the end those of all."""
        return tuple(accumulate((layer.attention for layer in self.layers), initial=0))

    def count(self, start: int, end: int) -> tuple[int, ...]:
        """Return how many layers of each size there are from `start` to before `end`."""
        return tuple(b - a for a, b in zip(self.counts[start], self.counts[end], strict=True))


def _size(layer: LayerShape) -> LayerShape:
    return LayerShape(0, layer.gate, layer.up, layer.down, layer.types)


@dataclass(frozen=True)
class Segment:
    """The layers from `start` to before `end` have their attention on a GPU; `packed` are the experts that go along."""

    gpu: int
    start: int
    end: int
    packed: Packed


@dataclass(frozen=True)
class Budget:
    """Bytes that a GPU has for weights and caches when it has no layers (negative: it must have some), a run of them, or the last run."""

    empty: int
    run: int
    with_output: int


class Point(NamedTuple):
    """How far the search has come: seconds saved, bytes of layers on GPUs, and the runs that give them."""

    saved: float
    n_bytes: int
    runs: tuple[Segment, ...]


class Run(NamedTuple):
    """A run of layers: up to which layer, the seconds that it saves, and the bytes of its attention and caches."""

    end: int
    saved: float
    n_bytes: int


class Step(NamedTuple):
    """A run that a GPU may take with one of several choices of experts; `has_all` if these are all of its experts."""

    run: Run
    is_last: bool
    has_all: bool
    choices: list[Packed]


def pack(
    goods: LayerSizes, rooms: Sequence[Budget], rates: Rates, kind: Kind, spare: int, *, from_disk: bool
) -> Layout | None:
    """Assign each GPU a run of layers and the experts that fit beside it, so that the fewest seconds pass; None when nothing fits.

    `spare` are the bytes that host memory has for layers; `from_disk` allows more.
    """

    def missing(point: Point) -> int:
        return max(0, goods.n_bytes - point.n_bytes - spare)

    if spare < 0 and (kind.mode == "all" or not from_disk):
        return None
    found = _search(goods, rooms, rates, kind, tight=False)
    if found and missing(found[0]):  # the quickest way needs more host memory than there is
        found = _search(goods, rooms, rates, kind, tight=True)
        if from_disk:
            found = [
                point
                for point in found
                if missing(point) <= goods.bytes_experts - sum(run.packed.n_bytes for run in point.runs)
            ]
            found.sort(key=lambda point: point.saved - rates.missing_byte * missing(point), reverse=True)
        else:
            found = [point for point in found if not missing(point)]
    return _layout(goods, found[0].runs, len(rooms)) if found else None


def at_least(
    goods: LayerSizes, rooms: Sequence[Budget], rates: Rates, kind: Kind, spare: int, *, from_disk: bool
) -> float | None:
    """Return seconds that no layout of that kind can beat, without searching; None when there is none."""
    host, gpus, mode = len(rooms), range(len(rooms)), kind.mode
    homes = range(host + 1) if mode == "none" else gpus
    # the last GPU that is used has the output layer, those before it have runs, and those behind it nothing
    before = accumulate((max(0, room.run) for room in rooms), initial=0)
    room = (
        max(there + room.with_output for there, room in zip(before, rooms, strict=False)) - goods.bytes_output
    )
    if goods.n_bytes - room - (goods.bytes_experts if from_disk else 0) > spare:
        return None  # even with every GPU full
    if mode != "none":
        room -= goods.n_bytes - goods.bytes_experts
    if room < (goods.bytes_experts if mode == "all" else 0):
        return None
    seconds = 2 * rates.hop + goods.bytes_output * min(rates.devices[gpu].output_byte for gpu in gpus)
    attention = goods.attention_counts.items()
    seconds += sum(n * min(rates.attention(at, n_bytes) for at in homes) for n_bytes, n in attention)
    counts, numbers = goods.counts[-1], range(len(MATRICES))
    there = [[rates.matrix(host, size, at) for at in numbers] for size in goods.sizes]
    here = [[min(rates.matrix(gpu, size, at) for gpu in gpus) for at in numbers] for size in goods.sizes]

    def total(costs: Iterable[Iterable[float]]) -> float:
        return sum(n * sum(cost) for n, cost in zip(counts, costs, strict=True))

    if mode == "all":
        return seconds + total(here)
    if mode == "none":
        return seconds + total(there)
    # one matrix stays behind whatever the room; and the room to the last byte is filled with what pays best
    pairs = [list(zip(*costs, strict=True)) for costs in zip(there, here, strict=True)]
    stays = 2 * rates.hop + min(max(0.0, a - b) for size in pairs for a, b in size)
    packers = [Packer(goods.sizes, rates, gpu, kind.splits, tight=False) for gpu in gpus]
    filled = total(there) + 2 * rates.hop * sum(counts) - most_saved(packers, counts, room)
    return seconds + max(total(map(min, size) for size in pairs) + stays, filled)


def _search(
    goods: LayerSizes, rooms: Sequence[Budget], rates: Rates, kind: Kind, *, tight: bool
) -> list[Point]:
    """Walk over the GPUs in their order; the last one that is used has the output layer too."""
    n, host = len(goods.layers), len(rooms)
    # (layers up to which all are placed, whether all their experts are on GPUs) -> the points worth following
    reached: dict[tuple[int, bool], list[Point]] = {
        (first, True): [Point(0.0, 0, ())] for first in (range(n + 1) if kind.mode == "none" else (0,))
    }
    final: list[Point] = []
    for gpu, room in enumerate(rooms):
        asked = (goods.counts[-1], max(0, room.run, room.with_output)) if host > 1 else None
        packer = Packer(goods.sizes, rates, gpu, kind.splits, tight=tight, most=asked)
        rest_may_be_empty = all(other.empty >= 0 for other in rooms[gpu + 1 :])
        found = {key: list(points) for key, points in reached.items()} if room.empty >= 0 else {}
        for (start, all_there), points in reached.items():
            for step in _steps(goods, room, rates, packer, kind.mode, gpu, start):
                is_all = all_there and step.has_all
                if step.is_last and (is_all != (kind.mode == "all") or not rest_may_be_empty):
                    continue
                more = _followed(points, gpu, start, step)
                if step.is_last:
                    final += more
                else:
                    found.setdefault((step.run.end, is_all), []).extend(more)
        reached = {key: undominated(points, tight=tight) for key, points in found.items()}
    return undominated(final, tight=tight)


def _steps(
    goods: LayerSizes, room: Budget, rates: Rates, packer: Packer, mode: Mode, gpu: int, start: int
) -> Iterator[Step]:
    """Yield every run that a GPU may take from `start` on, with the experts that fit beside it; the last run has the output layer."""
    must_end = gpu == len(rates.devices) - 2  # no GPU behind it
    here, there = rates.devices[gpu], rates.devices[-1]
    output = Run(0, (there.output_byte - here.output_byte) * goods.bytes_output, goods.bytes_output)
    most = max(room.run, room.with_output)
    for run in _runs(goods, rates, gpu, start, most, whole=must_end):
        for is_last in (True,) if must_end else (False, True) if run.end == len(goods.layers) else (False,):
            left = (room.with_output - output.n_bytes if is_last else room.run) - run.n_bytes
            if left < 0 or (not is_last and run.end == start):
                continue
            taken = run._replace(saved=run.saved + output.saved) if is_last else run
            for has_all, choices in _choices(goods, packer, mode, start, run.end, left):
                if choices:  # what leads nowhere is not followed
                    yield Step(taken, is_last, has_all, choices)


def _followed(points: Sequence[Point], gpu: int, start: int, step: Step) -> list[Point]:
    """Return the points that a step leads to, from each of those before it."""
    run = step.run
    return [
        Point(
            before.saved + run.saved + packed.saved,
            before.n_bytes + run.n_bytes + packed.n_bytes,
            (*before.runs, Segment(gpu, start, run.end, packed)),
        )
        for before in points
        for packed in step.choices
    ]


def _runs(goods: LayerSizes, rates: Rates, gpu: int, start: int, room: int, *, whole: bool) -> Iterator[Run]:
    """Yield every run from `start` on whose attention and caches fit.

    Against everything in host memory: one change of devices more, and two for each layer whose experts are not there too. With `whole`
    only the run up to the last layer.
    """
    here, there, before = rates.devices[gpu], rates.devices[-1], goods.attention_before
    for end in (len(goods.layers),) if whole else range(start, len(goods.layers) + 1):
        n, attention = end - start, before[end] - before[start]
        n_bytes = attention + n * goods.bytes_kv_layer
        if n and n_bytes > room:
            return
        n_aside = sum(
            goods.count(start, end)
        )  # layers whose experts cost two changes of devices until they are there too
        saved = n * (there.layer - here.layer) - 2 * rates.hop * n_aside - rates.hop
        yield Run(end, saved + (there.layer_byte - here.layer_byte) * attention, n_bytes)


def _choices(
    goods: LayerSizes, packer: Packer, mode: Mode, start: int, end: int, room: int
) -> Iterator[tuple[bool, list[Packed]]]:
    """Yield what may go along with a run: (whether that is all experts, choices)."""
    counts = goods.count(start, end)
    if mode == "none":
        yield False, [Packed(whole=(0,) * len(counts))]
        return
    yield True, packer.all_of(counts, room)
    if mode == "some" and end > start:
        yield False, packer.some_of(counts, room)


def _layout(goods: LayerSizes, runs: Sequence[Segment], host: int) -> Layout:
    first = runs[0].start
    attention: list[int] = [host] * first
    experts: list[Experts] = [(host, host, host)] * first
    for run in runs:
        attention += [run.gpu] * (run.end - run.start)
        experts += _place(goods, run, host)
    return Layout(host, tuple(attention), tuple(experts), runs[-1].gpu)


def _place(goods: LayerSizes, run: Segment, host: int) -> list[Experts]:
    """Return which layers those are: the last ones of each size whole, the one before them split."""
    left, split = list(run.packed.whole), run.packed.split
    placed: list[Experts] = []
    for layer in reversed(goods.layers[run.start : run.end]):
        if not layer.experts:
            placed.append((run.gpu,) * 3)
            continue
        size = goods.sizes.index(_size(layer))
        if left[size]:
            left[size] -= 1
            placed.append((run.gpu,) * 3)
        elif split is not None and split[0] == size:
            gate, up, down = (run.gpu if part else host for part in split[1])
            placed.append((gate, up, down))
            split = None
        else:
            placed.append((host,) * 3)
    return placed[::-1]
