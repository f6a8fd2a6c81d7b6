"""Bound the time of a kind of layouts from below, without searching for the quickest one."""

from collections.abc import Iterable, Sequence
from itertools import accumulate
from operator import mul

from profiles.packing import Budget, Kind
from profiles.prices import LayerSizes, Price, Prices

MOST_SIZES = 2  # of layers that are counted one by one


def at_least(
    prices: Prices,
    rooms: Sequence[Budget],
    kind: Kind,
    spare: int,
    *,
    from_disk: bool,
    uncut: bool = False,
) -> float | None:
    """Return seconds that no layout of that kind can beat; None when there is none.

    `spare` are the bytes that host memory has for layers; `from_disk` allows more. With `uncut` the bound is closer, and takes longer: layers
    that are not split are counted one by one.
    """
    goods, rates, mode = prices.goods, prices.rates, kind.mode
    room = _in_all([room.run for room in rooms], [room.with_output - goods.bytes_output for room in rooms])
    if goods.n_bytes - room - (goods.bytes_experts if from_disk else 0) > spare:
        return None  # even with every GPU full
    if mode != "none":
        room -= goods.n_bytes - goods.bytes_experts
    if room < (goods.bytes_experts if mode == "all" else 0):
        return None
    counts, gpus = goods.counts[-1], range(len(rooms))
    seconds = 2 * rates.least_hop + goods.bytes_output * min(rates.devices[gpu].output_byte for gpu in gpus)
    seconds += prices.attention(may_stay=mode == "none")
    if mode == "all":
        return seconds + _total(counts, prices.here)
    seconds += _total(counts, prices.there)
    if mode == "none":
        return seconds
    if uncut and len(goods.sizes) <= MOST_SIZES:
        room = _uncut(goods, rooms, kind, room)
    return seconds + 2 * rates.least_hop * sum(counts) - _most_saved(prices, kind, room)


def _in_all(runs: Sequence[int], lasts: Sequence[int]) -> int:
    """Return the bytes of all GPUs together: the last one that is used has the output layer, those before it have runs, and those behind it nothing."""
    before = accumulate((max(0, run) for run in runs), initial=0)
    return max(there + last for there, last in zip(before, lasts, strict=False))


def _uncut(goods: LayerSizes, rooms: Sequence[Budget], kind: Kind, room: int) -> int:
    """Return how much of a room for experts layers fill that are not cut, but for one on each GPU that is split."""
    sizes = [(size.gate, size.up, size.down) for size in goods.sizes]
    parts = {0, *(sum(map(mul, way, size)) for size in sizes for way in kind.splits)}
    beside = goods.bytes_kv_layer + min((one.attention for one in goods.layers if one.experts), default=0)
    runs = [_filled(goods, parts, one.run, beside) for one in rooms]
    lasts = [_filled(goods, parts, one.with_output - goods.bytes_output, beside) for one in rooms]
    together = {0}
    for _ in rooms:
        together = {a + b for a in together for b in parts}
    return _filled(goods, together, min(room, _in_all(runs, lasts)))


def _filled(goods: LayerSizes, parts: Iterable[int], room: int, beside: int = 0) -> int:
    """Return the most bytes of whole layers and one of `parts` that fit, where each layer needs some bytes beside its experts."""
    counts = (*goods.counts[-1], 0, 0)
    first, second, *_ = (*(size.experts for size in goods.sizes), 1, 1)
    most = 0
    for part in parts:
        left = room - part - (beside if part else 0)
        for n in range(min(counts[0], left // (first + beside)), -1, -1):
            others = min(counts[1], (left - n * (first + beside)) // (second + beside))
            most = max(most, part + n * first + others * second)
            if not counts[1]:  # then the most of the first size are the best
                break
    return most


def _total(counts: Sequence[int], costs: Iterable[Iterable[float]]) -> float:
    return sum(n * sum(cost) for n, cost in zip(counts, costs, strict=True))


def _most_saved(prices: Prices, kind: Kind, room: int) -> float:
    """Return seconds that GPUs with so much room together cannot save more of when not all layers go there whole.

    As if layers could be cut: the best are taken until the room is full, so that a byte of it is worth what the last one taken saves for a
    byte. At that worth a layer adds what it saves beyond its bytes, or, once for each GPU, what it saves when it is split.
    """
    counts, gpus = prices.goods.counts[-1], range(prices.host)
    of_gpus: Iterable[tuple[Price, ...]] = zip(*map(prices.whole, gpus), strict=True)
    best = [max(each, key=lambda price: price.saved) for each in of_gpus]
    worth, left = 0.0, room
    for n, price in sorted(zip(counts, best, strict=True), key=lambda pair: -_gain(pair[1])):
        if price.saved <= 0:
            break
        left -= n * price.n_bytes
        if left < 0:
            worth = _gain(price)
            break
    whole = [max(0.0, saved - worth * n_bytes) for n_bytes, saved in best]
    split = [
        max(
            (one.saved - worth * one.n_bytes - whole[one.size] for one in prices.splits(gpu, kind.splits)),
            default=float("-inf"),
        )
        for gpu in gpus
    ]
    added = sum(max(0.0, one) for one in split) or max(*split, -min(whole, default=0.0))
    return worth * room + sum(n * one for n, one in zip(counts, whole, strict=True)) + added


def _gain(price: Price) -> float:
    return price.saved / price.n_bytes if price.n_bytes else 0.0
