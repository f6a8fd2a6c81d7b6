"""Which experts go to which GPU: whole layers, and at most one layer a GPU split by tensor, so that the gain is largest.

Layers of one size are alike, so what is searched is how many of each size a GPU takes, not which: exact and quick.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import pairwise, product

from profiles.layout import Experts, Layout
from profiles.shape import LayerShape

# The matrices of a split layer that may go to the GPU (gate, up, down); "up" alone would cost two more hops than gate alone
SPLITS = ((1, 1, 0), (0, 1, 1), (1, 0, 1), (0, 0, 1), (1, 0, 0))
MAX_SIZES = 3  # sizes of layers that are searched exactly; of more, the smaller ones are filled greedily


@dataclass(frozen=True)
class Packed:
    """How many layers of each size a GPU takes whole, and which part of one more; `n_bytes` of experts in all."""

    n_bytes: int
    whole: tuple[tuple[LayerShape, int], ...]
    split: tuple[LayerShape, tuple[int, int, int]] | None


@lru_cache(maxsize=65536)
def pack(sizes: tuple[tuple[LayerShape, int], ...], room: int) -> Packed:
    """Choose from layers, given as (layer, how many there are), the most bytes of experts that fit into `room`."""
    best = Packed(0, (), None)
    for counts in _counts(sizes, room):
        used = sum(layer.experts * n for (layer, _), n in zip(sizes, counts, strict=True))
        split, extra = None, 0
        for (layer, there), n in zip(sizes, counts, strict=True):
            if n == there:
                continue
            for parts in SPLITS:
                n_bytes = layer.gate * parts[0] + layer.up * parts[1] + layer.down * parts[2]
                if extra < n_bytes <= room - used:
                    split, extra = (layer, parts), n_bytes
        if used + extra > best.n_bytes:
            whole = tuple((layer, n) for (layer, _), n in zip(sizes, counts, strict=True))
            best = Packed(used + extra, whole, split)
    return best


def _counts(sizes: Sequence[tuple[LayerShape, int]], room: int) -> Iterator[tuple[int, ...]]:
    """Give the combinations that may be best: all counts of the first sizes, and of the rest as many as fit."""
    searched = min(len(sizes), MAX_SIZES) - 1
    for counts in product(*(range(n, -1, -1) for _, n in sizes[:searched])):
        left = room - sum(layer.experts * n for (layer, _), n in zip(sizes, counts, strict=False))
        if left < 0:
            continue
        rest = []
        for layer, there in sizes[searched:]:
            n = min(there, left // layer.experts) if layer.experts else there
            rest.append(n)
            left -= n * layer.experts
        yield (*counts, *rest)


def sizes_of(layers: Sequence[LayerShape]) -> tuple[tuple[LayerShape, int], ...]:
    """Count layers by the sizes of their experts, the largest first."""
    found: dict[LayerShape, int] = {}
    for layer in layers:
        alike = LayerShape(0, layer.gate, layer.up, layer.down)
        found[alike] = found.get(alike, 0) + 1
    return tuple(sorted(found.items(), key=lambda item: -item[0].experts))


def fill(
    layers: Sequence[LayerShape], rooms: Sequence[int], gains: Sequence[float], fixed: "Fixed", first: int
) -> Layout | None:
    """Give each GPU a run of the layers from `first` on and the experts that fit beside it; None when no runs fit.

    `rooms` are bytes a GPU has for weights and caches, `gains` seconds that a byte of experts saves there. The layers before
    `first` stay on the host.
    """
    n, host = len(layers), len(rooms)
    # best[i]: (seconds saved, ends of the runs) for the GPUs so far and the layers up to i
    best: dict[int, tuple[float, tuple[int, ...]]] = {first: (0.0, (first,))}
    for gpu, room in enumerate(rooms):
        found: dict[int, tuple[float, tuple[int, ...]]] = {}
        for start, (saved, ends) in best.items():
            for end in range(start, n + 1) if gpu < host - 1 else (n,):
                left = room - fixed.between(start, end) - (fixed.output if gpu == host - 1 else 0)
                if left < 0:
                    break
                packed = pack(sizes_of(layers[start:end]), left)
                total = saved + packed.n_bytes * gains[gpu]
                if end not in found or total > found[end][0]:
                    found[end] = (total, (*ends, end))
        best = found
    if n not in best:
        return None
    ends = best[n][1]
    attention, experts = [host] * first, [(host, host, host)] * first
    for gpu, (start, end) in enumerate(pairwise(ends)):
        left = rooms[gpu] - fixed.between(start, end) - (fixed.output if gpu == host - 1 else 0)
        attention += [gpu] * (end - start)
        experts += _place(layers[start:end], pack(sizes_of(layers[start:end]), left), gpu, host)
    return Layout(host, tuple(attention), tuple(experts), host - 1)


def _place(layers: Sequence[LayerShape], packed: Packed, gpu: int, host: int) -> list[Experts]:
    """Say which layers those are: the last ones of each size whole, the one before them split."""
    left = dict(packed.whole)
    split = packed.split
    placed: list[Experts] = []
    for layer in reversed(layers):
        alike = LayerShape(0, layer.gate, layer.up, layer.down)
        if left.get(alike, 0):
            left[alike] -= 1
            placed.append((gpu, gpu, gpu))
        elif split is not None and split[0] == alike:
            gate, up, down = (gpu if part else host for part in split[1])
            placed.append((gate, up, down))
            split = None
        else:
            placed.append((host, host, host))
    return placed[::-1]


@dataclass(frozen=True)
class Fixed:
    """What must go with a layer to its GPU: attention and cache, as sums up to each layer, and the output layer."""

    sums: tuple[int, ...]
    output: int

    @classmethod
    def of(cls, layers: Sequence[LayerShape], bytes_kv_layer: int, output: int) -> "Fixed":
        sums = [0]
        for layer in layers:
            sums.append(sums[-1] + layer.attention + bytes_kv_layer)
        return cls(tuple(sums), output)

    def between(self, start: int, end: int) -> int:
        return self.sums[end] - self.sums[start]
