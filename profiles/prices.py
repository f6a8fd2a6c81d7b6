"""What the layers of a model cost on each device, and what their experts save on a GPU: worked out once for many questions."""

from collections import Counter
from dataclasses import dataclass
from functools import cached_property
from itertools import accumulate
from typing import NamedTuple

from profiles.shape import MATRICES, LayerShape
from profiles.speed import Rates

Parts = tuple[int, int, int]  # of gate, up and down: 1 for a matrix on a GPU
Costs = tuple[float, ...]  # seconds of gate, up and down

WHOLE: Parts = (1, 1, 1)
STAY: Parts = (0, 0, 0)


@dataclass(frozen=True)
class LayerSizes:
    """What is to be stowed: the layers, the bytes of one layer's cache, and the bytes of the output layer."""

    layers: tuple[LayerShape, ...]
    bytes_kv_layer: int
    bytes_output: int

    @cached_property
    def bytes_weights(self) -> int:
        """Return the bytes of all layers."""
        return sum(layer.attention + layer.experts for layer in self.layers)

    @property
    def n_bytes(self) -> int:
        """Return the bytes of all layers with their caches."""
        return self.bytes_weights + len(self.layers) * self.bytes_kv_layer

    @cached_property
    def bytes_experts(self) -> int:
        """Return the bytes of all experts."""
        return sum(layer.experts for layer in self.layers)

    @cached_property
    def sizes(self) -> tuple[LayerShape, ...]:
        """Return the sizes that layers' experts have, the largest first; layers without experts have none."""
        sizes = {size_of(layer) for layer in self.layers if layer.experts}
        return tuple(sorted(sizes, key=lambda layer: -layer.experts))

    @cached_property
    def counts(self) -> list[tuple[int, ...]]:
        """Return how many layers of each size come before each layer, and at the end those of all."""
        places = {size: at for at, size in enumerate(self.sizes)}
        found = [(0,) * len(self.sizes)]
        for layer in self.layers:
            at = places.get(size_of(layer))
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


def size_of(layer: LayerShape) -> LayerShape:
    """Return what layers have in common whose experts are alike."""
    return LayerShape(0, layer.gate, layer.up, layer.down, layer.types)


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


class Prices:
    """The layers `goods` at `rates`. GPUs that are alike have the same prices, which are made once."""

    def __init__(self, goods: LayerSizes, rates: Rates) -> None:
        self.goods, self.rates = goods, rates
        self._whole: dict[int, tuple[Price, ...]] = {}
        self._splits: dict[tuple[int, tuple[Parts, ...]], tuple[Split, ...]] = {}

    @property
    def host(self) -> int:
        """Return the number of the host among the devices."""
        return len(self.rates.devices) - 1

    def like(self, gpu: int) -> int:
        """Return the first GPU with the same rates."""
        return self.rates.devices.index(self.rates.devices[gpu])

    @cached_property
    def there(self) -> tuple[Costs, ...]:
        """Return what the matrices of each size of layers cost in host memory."""
        return self._costs(self.host)

    @cached_property
    def here(self) -> tuple[Costs, ...]:
        """Return what the matrices of each size of layers cost on the GPU that is quickest with them."""
        each = [self._costs(gpu) for gpu in range(self.host)]
        return tuple(tuple(map(min, zip(*costs, strict=True))) for costs in zip(*each, strict=True))

    def attention(self, *, may_stay: bool) -> float:
        """Return the least that all layers' attention costs on GPUs, or also in host memory where it may stay there."""
        homes = range(self.host + may_stay)
        return sum(
            n * min(self.rates.attention(at, n_bytes) for at in homes)
            for n_bytes, n in self.goods.attention_counts.items()
        )

    def whole(self, gpu: int) -> tuple[Price, ...]:
        """Return the price of all experts of a layer of each size on a GPU."""
        gpu = self.like(gpu)
        if gpu not in self._whole:
            costs = self._costs(gpu)
            self._whole[gpu] = tuple(self._price(at, costs[at], WHOLE) for at in range(len(self.goods.sizes)))
        return self._whole[gpu]

    def splits(self, gpu: int, ways: tuple[Parts, ...]) -> tuple[Split, ...]:
        """Return the splits of layers of each size of which a GPU has the matrices of one of these ways."""
        gpu = self.like(gpu)
        if (gpu, ways) not in self._splits:
            costs = self._costs(gpu)
            self._splits[gpu, ways] = tuple(
                Split(at, parts, *self._price(at, costs[at], parts))
                for at, layer in enumerate(self.goods.sizes)
                for parts in ways
                if layer.up or parts[0] == parts[1]  # gate and up may be one tensor
            )
        return self._splits[gpu, ways]

    def _costs(self, device: int) -> tuple[Costs, ...]:
        numbers = range(len(MATRICES))
        return tuple(
            tuple(self.rates.matrix(device, size, at) for at in numbers) for size in self.goods.sizes
        )

    def _price(self, size: int, here: Costs, parts: Parts) -> Price:
        layer, there = self.goods.sizes[size], self.there[size]
        moved = [at for at, part in enumerate(parts) if part]
        saved = sum(there[at] - here[at] for at in moved)
        n_bytes = sum((layer.gate, layer.up, layer.down)[at] for at in moved)
        return Price(n_bytes, saved + (2 * self.rates.least_hop if all(parts) else 0.0))
