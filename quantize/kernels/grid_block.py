"""Super-blocks of the IQ2 and IQ3 types: their weights without signs, and how much each counts; then the codes of their scales."""

from typing import Any, NamedTuple

import numpy as np

from quantize.kernels.grid_search import SubBlock
from quantize.kernels.lanes import (
    fabs,
    highest,
    load8,
    load16,
    lowest,
    lowest_bit,
    pattern,
    sqrt,
    store,
)
from quantize.kernels.search import clamp, inlined, nearest, to_half
from quantize.kernels.tile import SUPER

GROUP = 8  # weights whose signs share a byte


class Block(NamedTuple):
    """One super-block; [j] is about sub-block j, [g] about the eight weights of group g."""

    x: Any  # sizes of the weights; negative where a sign was flipped
    weights: Any
    signs: Any  # [g]: bit i is set where weight i is negative
    scales: Any  # [j], 0 where nothing is stored
    codes: Any  # [j]: of the scales
    half: Any  # d as it is stored


@inlined
def new_lot(n: int) -> Block:
    """Return room for `n` super-blocks, one behind the other."""
    return Block(
        x=np.zeros(n * SUPER, np.float32),
        weights=np.zeros(n * SUPER, np.float32),
        signs=np.zeros(n * SUPER // GROUP, np.int32),
        scales=np.zeros(16, np.float32),
        codes=np.zeros(16, np.int32),
        half=np.zeros(16, np.int32),
    )


@inlined
def block_of(lot: Block, k: int) -> Block:
    """Return super-block `k` of several; their scales have one room, as they are searched and coded one after the other."""
    n = SUPER // GROUP
    return Block(
        lot.x[k * SUPER : (k + 1) * SUPER],
        lot.weights[k * SUPER : (k + 1) * SUPER],
        lot.signs[k * n : (k + 1) * n],
        lot.scales,
        lot.codes,
        lot.half,
    )


@inlined
def weigh(block: Block, rows: Any, importance: Any, start: int, double: bool, added: float) -> None:
    """Split the super-block from weight `start` on into sizes and signs; weights are importance * sqrt(mean square + x**2).

    The mean square counts twice if `double`. Without an importance matrix weights are `added` * mean square + x**2.
    """
    total = np.float32(0)
    for i in range(start, start + SUPER):
        total += rows[i] * rows[i]
    mean_square = (np.float32(2) * total if double else total) / np.float32(SUPER)
    for i in range(0, SUPER, 16):
        v = load16(rows, start + i)
        if importance.size:
            store(
                block.weights, i, load16(importance, start % importance.size + i) * sqrt(v * v + mean_square)
            )
        elif added > 0:
            store(block.weights, i, v * v + np.float32(added) * mean_square)
        else:
            store(block.weights, i, v * v)
        store(block.x, i, fabs(v))
        signs = pattern(v < 0.0)
        block.signs[i // GROUP] = signs & 255
        block.signs[i // GROUP + 1] = signs >> 8


@inlined
def make_signs_even(block: Block) -> None:
    """Flip a sign in each group with an odd number of them, where it costs least: then seven of eight are stored."""
    for g in range(SUPER // GROUP):
        signs = block.signs[g]
        odd = signs ^ signs >> 4
        odd ^= odd >> 2
        if (odd ^ odd >> 1) & 1:
            x, at = load8(block.x, g * GROUP), g * GROUP
            cost = load8(block.weights, at) * x * x
            i = lowest_bit(pattern(cost == lowest(cost))) & 7  # none is lowest where weights overflow
            block.x[at + i] = -block.x[at + i]
            signs ^= 1 << i
        block.signs[g] = signs & 127


@inlined
def take(b: SubBlock, block: Block, first: int, n: int) -> Any:
    """Copy `n` weights from `first` on into a sub-block; returns the largest."""
    largest = block.x[first]
    for i in range(0, n, 16):
        x, weights = load16(block.x, first + i), load16(block.weights, first + i)
        store(b.x, i, x)
        store(b.weights, i, weights)
        store(b.roots, i, sqrt(weights))
        store(b.products, i, weights * x)
        high = highest(x)
        largest = high if high > largest else largest
    return largest


@inlined
def set_scales(b: SubBlock, ends: Any, size: float) -> None:
    """Try the scales by which `size` becomes each of the numbers `ends`."""
    for s in range(0, ends.size, 16):
        inverse = load16(ends, s) / size
        store(b.inverses, s, inverse)
        store(b.scales, s, 1.0 / inverse)


@inlined
def turn_signs(block: Block, first: int, end: int, mask: int) -> None:
    for g in range(first, end):
        block.signs[g] = ~block.signs[g] & mask


@inlined
def code_scales(block: Block, factor: float) -> bool:
    """Turn the scales into codes 0 to 15 of odd multiples of `half`, which is a 31st of the largest times `factor`; False if all are 0."""
    largest = highest(load16(block.scales, 0))
    if not largest:
        return False
    d = largest / np.float32(31)
    inverse = np.float32(1) / d
    codes = clamp(nearest(0.5 * (load16(block.scales, 0) * inverse - 1.0)), 0, 15)
    store(block.codes, 0, codes)
    block.scales[0] = d * np.float32(factor)
    store(block.half, 0, to_half(load16(block.scales, 0)))
    return True
