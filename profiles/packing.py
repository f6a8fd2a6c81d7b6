"""Assign experts to GPUs so that a workload takes the least time, by dynamic programming over runs of layers.

Costs are sums over layers, so the runs of several GPUs are found by dynamic programming, exactly.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Literal, NamedTuple

from profiles.layout import Experts, Layout
from profiles.packing_one_gpu import Choice, Packer, undominated
from profiles.prices import LayerSizes, Parts, Prices, size_of

Mode = Literal[
    "all", "some", "none"
]  # of the experts that go to GPUs; only with "none" may attention stay in host memory too

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


class Segment(NamedTuple):
    """The layers from `start` to before `end` have their attention on a GPU; `packed` are the experts that go along."""

    gpu: int
    start: int
    end: int
    packed: Choice


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


class Step(NamedTuple):
    """A run of layers that a GPU may take, up to before `end`, with one of several choices of experts.

    `saved` and `n_bytes` are those of its attention and caches; `is_last` says that it has the output layer, `has_all` that these are all of
    its experts.
    """

    end: int
    saved: float
    n_bytes: int
    is_last: bool
    has_all: bool
    choices: list[Choice]


def pack(
    prices: Prices, rooms: Sequence[Budget], kind: Kind, spare: int, *, from_disk: bool
) -> Layout | None:
    """Assign each GPU a run of layers and the experts that fit beside it, so that the fewest seconds pass; None when nothing fits.

    `spare` are the bytes that host memory has for layers; `from_disk` allows more.
    """
    goods = prices.goods

    def missing(point: Point) -> int:
        return max(0, goods.n_bytes - point.n_bytes - spare)

    if spare < 0 and (kind.mode == "all" or not from_disk):
        return None
    found = _search(prices, rooms, kind, tight=False)
    if found and missing(found[0]):  # the quickest way needs more host memory than there is
        found = _search(prices, rooms, kind, tight=True)
        if from_disk:
            found = [
                point
                for point in found
                if missing(point) <= goods.bytes_experts - sum(run.packed.n_bytes for run in point.runs)
            ]
            byte = prices.rates.missing_byte
            found.sort(key=lambda point: point.saved - byte * missing(point), reverse=True)
        else:
            found = [point for point in found if not missing(point)]
    return _layout(goods, found[0].runs, len(rooms)) if found else None


def _search(prices: Prices, rooms: Sequence[Budget], kind: Kind, *, tight: bool) -> list[Point]:
    """Walk over the GPUs in their order; the last one that is used has the output layer too."""
    n = len(prices.goods.layers)
    # (layers up to which all are placed, whether all their experts are on GPUs) -> the points worth following
    reached: dict[tuple[int, bool], list[Point]] = {
        (first, True): [Point(0.0, 0, ())] for first in (range(n + 1) if kind.mode == "none" else (0,))
    }
    final: list[Point] = []
    packers = _packers(prices, rooms, kind, tight=tight)
    for gpu, room in enumerate(rooms):
        rest_may_be_empty = all(other.empty >= 0 for other in rooms[gpu + 1 :])
        found = {key: list(points) for key, points in reached.items()} if room.empty >= 0 else {}
        steps: dict[int, list[Step]] = {}
        for (start, all_there), points in reached.items():
            if start not in steps:
                steps[start] = list(_steps(prices, room, packers[gpu], kind.mode, gpu, start))
            for step in steps[start]:
                is_all = all_there and step.has_all
                if not step.is_last:
                    found.setdefault((step.end, is_all), []).extend(_followed(points, gpu, start, step))
                elif is_all == (kind.mode == "all") and rest_may_be_empty:
                    final += _followed(points, gpu, start, step)
        reached = {key: undominated(points, tight=tight) for key, points in found.items()}
    return undominated(final, tight=tight)


def _packers(prices: Prices, rooms: Sequence[Budget], kind: Kind, *, tight: bool) -> list[Packer]:
    """Return what packs each GPU: one for all that are alike."""
    largest = max(0, *(max(room.run, room.with_output) for room in rooms))
    asked = (prices.goods.counts[-1], largest) if len(rooms) > 1 else None
    made: dict[int, Packer] = {}
    for gpu in range(len(rooms)):
        if (like := prices.like(gpu)) not in made:
            made[like] = Packer(prices, like, kind.splits, tight=tight, most=asked)
    return [made[prices.like(gpu)] for gpu in range(len(rooms))]


def _steps(prices: Prices, room: Budget, packer: Packer, mode: Mode, gpu: int, start: int) -> Iterator[Step]:
    """Yield every run that a GPU may take from `start` on, with the experts that fit beside it; the last run has the output layer.

    Against everything in host memory it costs one change of devices more, and two for each layer whose experts are not there too.
    """
    goods, rates = prices.goods, prices.rates
    here, there, before = rates.devices[gpu], rates.devices[-1], goods.attention_before
    must_end = gpu == prices.host - 1  # no GPU behind it
    of_output = (there.output_byte - here.output_byte) * goods.bytes_output
    of_layer, of_byte = there.layer - here.layer, there.layer_byte - here.layer_byte
    n_layers, most = len(goods.layers), max(room.run, room.with_output)
    for end in (n_layers,) if must_end else range(start, n_layers + 1):
        n, attention, counts = end - start, before[end] - before[start], goods.count(start, end)
        n_bytes = attention + n * goods.bytes_kv_layer
        if n and n_bytes > most:
            return
        saved = n * of_layer - 2 * rates.least_hop * sum(counts) - rates.least_hop + of_byte * attention
        if n and not must_end and n_bytes <= room.run:
            for has_all, choices in _choices(packer, mode, counts, n, room.run - n_bytes):
                yield Step(end, saved, n_bytes, False, has_all, choices)
        left = room.with_output - goods.bytes_output - n_bytes
        if end == n_layers and left >= 0:
            for has_all, choices in _choices(packer, mode, counts, n, left):
                yield Step(end, saved + of_output, n_bytes, True, has_all, choices)


def _choices(
    packer: Packer, mode: Mode, counts: tuple[int, ...], n: int, room: int
) -> Iterator[tuple[bool, list[Choice]]]:
    """Yield the experts that may go along with a run of `n` layers: (whether these are all, choices); none that lead nowhere."""
    if mode == "none":
        yield False, [Choice(0.0, 0, (0,) * len(counts))]
        return
    if every := packer.all_of(counts, room):
        yield True, every
    if mode == "some" and n and (some := packer.some_of(counts, room)):
        yield False, some


def _followed(points: Sequence[Point], gpu: int, start: int, step: Step) -> list[Point]:
    """Return the points that a step leads to, from each of those before it."""
    return [
        Point(
            before.saved + step.saved + packed.saved,
            before.n_bytes + step.n_bytes + packed.n_bytes,
            (*before.runs, Segment(gpu, start, step.end, packed)),
        )
        for before in points
        for packed in step.choices
    ]


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
        size = goods.sizes.index(size_of(layer))
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
