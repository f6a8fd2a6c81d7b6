"""Kernels for Q8_0 and Q4_0 to Q5_1: blocks of 32 weights, for rows that are not a multiple of 256.

Without an importance matrix a block needs only its extremes and is handled along its row; with one, the searches of
search.py run with a block a lane. Kernels are called as those of tile.py. The layouts are ggml's
(ggml-common.h); so are the conversions: a float becomes an int8 as x86's cvttss2si and the low byte do it.
"""

from typing import Any, NamedTuple

import numpy as np

from quantize.kernels.lanes import (
    LANES,
    fabs,
    highest,
    load,
    load16,
    lowest,
    pattern,
    select,
    sqrt,
    store,
    to_int,
    trunc,
)
from quantize.kernels.search import clamp, inlined, nearest, search_scale, search_scale_and_min, to_half
from quantize.kernels.tile import kernel, put_half, turn

BLOCK = 32


@inlined
def _low_byte(values: Any) -> Any:
    """Towards zero to int32, of which the low byte counts; 0 where that would overflow."""
    return select(fabs(values) < 2.0**31, to_int(values), 0) & 0xFF


@inlined
def _extremes(rows: Any, start: int) -> tuple[Any, Any]:
    """Lowest and highest of a block; the first one in it where 0 and -0 compete."""
    a, b = load16(rows, start), load16(rows, start + 16)
    low, high = lowest(select(a < b, a, b)), highest(select(a > b, a, b))
    if low == 0 or high == 0:
        low = high = rows[start]
        for i in range(1, BLOCK):
            v = rows[start + i]
            low = v if v < low else low
            high = v if v > high else high
    return low, high


@inlined
def _peak(rows: Any, start: int) -> Any:
    """Return the first value of the largest size in a block, with its sign."""
    low, high = _extremes(rows, start)
    if high != -low:
        return high if high > -low else low
    for i in range(BLOCK):
        if abs(rows[start + i]) == high and high != 0:
            return rows[start + i]
    return np.float32(0)


@kernel
def q8_0(rows: Any, importance: Any, out: Any) -> None:
    n_blocks = rows.size // BLOCK
    scales, halves = np.empty(LANES, np.float32), np.empty(LANES, np.int32)
    for first in range(0, n_blocks, LANES):
        count = min(LANES, n_blocks - first)
        for k in range(count):
            start = (first + k) * BLOCK
            a, b = fabs(load16(rows, start)), fabs(load16(rows, start + 16))
            scales[k] = highest(select(a > b, a, b))
        d = load(scales, 0) / 127.0
        store(halves, 0, to_half(d))
        store(scales, 0, select(d != 0.0, 1.0 / d, 0.0))
        for k in range(count):
            at = (first + k) * 34
            put_half(out, at, halves[k])
            for i in range(0, BLOCK, 16):
                v = load16(rows, (first + k) * BLOCK + i) * scales[k]
                whole = trunc(v)
                rest = v - whole
                whole = select(rest >= 0.5, whole + 1.0, select(rest <= -0.5, whole - 1.0, whole))
                store(out, at + 2 + i, _low_byte(whole))


class Lot(NamedTuple):
    """LANES blocks, and by what their weights are rounded and read; [i * LANES + k] is about weight i of lane k."""

    x: Any
    weights: Any
    scratch: Any
    mean_squares: Any  # of the row that each lane is from
    inverses: Any
    bases: Any
    halves: Any  # d as it is stored
    min_halves: Any


@inlined
def _new_lot() -> Lot:
    return Lot(
        x=np.empty(BLOCK * LANES, np.float32),
        weights=np.empty(BLOCK * LANES, np.float32),
        scratch=np.empty(BLOCK * LANES, np.float32),
        mean_squares=np.zeros(LANES, np.float32),
        inverses=np.empty(LANES, np.float32),
        bases=np.empty(LANES, np.float32),
        halves=np.empty(LANES, np.int32),
        min_halves=np.empty(LANES, np.int32),
    )


@inlined
def _keep(lot: Lot, scale: Any, low: Any, inverse: Any, base: Any) -> None:
    store(lot.halves, 0, to_half(scale))
    store(lot.min_halves, 0, to_half(low))
    store(lot.inverses, 0, inverse)
    store(lot.bases, 0, base)


@inlined
def _find(lot: Lot, rows: Any, first: int, count: int, top: int, with_min: bool) -> None:
    """Scales (and minima) that put the extremes of the blocks from `first` on at the ends of the levels."""
    for k in range(count):
        start = (first + k) * BLOCK
        if with_min:
            lot.bases[k], lot.inverses[k] = _extremes(rows, start)
        else:
            lot.bases[k], lot.inverses[k] = np.float32(0), _peak(rows, start)
    low, far = load(lot.bases, 0), load(lot.inverses, 0)
    scale = (far - low) / top if with_min else far / -top
    _keep(lot, scale, low, select(scale != 0.0, 1.0 / scale, 0.0), low)


@inlined
def _mean_square(rows: Any, start: int, length: int) -> Any:
    total = np.float32(0)
    for i in range(start, start + length):
        total += rows[i] * rows[i]
    return total / np.float32(length)


@inlined
def _search(lot: Lot, rows: Any, importance: Any, first: int, count: int, top: int, with_min: bool) -> None:
    """Scales (and minima) of the least error, weighted by importance * sqrt(the row's mean square + x**2)."""
    length = importance.size
    last = lot.mean_squares[LANES - 1]  # where a row goes on from the lot before
    for k in range(LANES):
        start = (first + k) * BLOCK
        if k < count and start % length == 0:
            last = _mean_square(rows, start, length)
        lot.mean_squares[k] = last
    turn(rows, first, count, BLOCK, lot.x)
    turn(importance, first, count, BLOCK, lot.weights)
    mean_square = load(lot.mean_squares, 0)
    for i in range(BLOCK):
        v = load(lot.x, i * LANES)
        store(lot.weights, i * LANES, load(lot.weights, i * LANES) * sqrt(mean_square + v * v))
    if with_min:
        scale, minimum, inverse, base = search_scale_and_min(
            lot.x, lot.weights, lot.scratch, BLOCK, top, -0.9, 0.05, 36, False
        )
        _keep(lot, scale, -minimum, inverse, base)
    else:
        scale, inverse = search_scale(lot.x, lot.weights, lot.scratch, BLOCK, top)
        _keep(lot, scale, scale, inverse, scale)


@inlined
def _levels(v: Any, inverse: float, base: float, top: int, with_min: bool, weighted: bool) -> Any:
    """Return the levels of weights, stored from 0 on: of Q4_0 (top 8), Q5_0 (16), Q4_1 (15) or Q5_1 (31)."""
    if weighted and with_min:
        return clamp(nearest(inverse * (v - base)), 0, top)
    if weighted:
        return clamp(nearest(inverse * v), -top, top - 1) + top if inverse < np.inf else nearest(v * 0.0)
    if with_min:
        levels = _low_byte((v - base) * inverse + 0.5)
        return levels if top == 31 else _at_most(top, levels)
    return _at_most(2 * top - 1, _low_byte(v * inverse + (top + 0.5)))


@inlined
def _at_most(top: int, levels: Any) -> Any:
    """Low bytes read as int8, limited to `top`."""
    signed = levels << 24 >> 24
    return select(signed > top, top, signed)


@inlined
def _quantize(rows: Any, importance: Any, out: Any, top: int, with_min: bool) -> None:
    """Blocks of d, for `with_min` the minimum, for more than 16 levels the fifth bits, and sixteen bytes of two levels each."""
    n_blocks = rows.size // BLOCK
    weighted = importance.size > 0
    five_bits = top >= 16
    header = (4 if with_min else 2) + (4 if five_bits else 0)
    lot = _new_lot()
    for first in range(0, n_blocks, LANES):
        count = min(LANES, n_blocks - first)
        if weighted:
            _search(lot, rows, importance, first, count, top, with_min)
        else:
            _find(lot, rows, first, count, top, with_min)
        for k in range(count):
            start, at = (first + k) * BLOCK, (first + k) * (header + 16)
            a = _levels(load16(rows, start), lot.inverses[k], lot.bases[k], top, with_min, weighted)
            b = _levels(load16(rows, start + 16), lot.inverses[k], lot.bases[k], top, with_min, weighted)
            put_half(out, at, lot.halves[k])
            if with_min:
                put_half(out, at + 2, lot.min_halves[k])
            if five_bits:
                fifth = pattern((a & 16) != 0) | pattern((b & 16) != 0) << 16
                put_half(out, at + header - 4, fifth)
                put_half(out, at + header - 2, fifth >> 16)
            store(out, at + header, a & 15 | (b & 15) << 4)


@kernel
def q4_0(rows: Any, importance: Any, out: Any) -> None:
    _quantize(rows, importance, out, 8, False)


@kernel
def q5_0(rows: Any, importance: Any, out: Any) -> None:
    _quantize(rows, importance, out, 16, False)


@kernel
def q4_1(rows: Any, importance: Any, out: Any) -> None:
    _quantize(rows, importance, out, 15, True)


@kernel
def q5_1(rows: Any, importance: Any, out: Any) -> None:
    _quantize(rows, importance, out, 31, True)
