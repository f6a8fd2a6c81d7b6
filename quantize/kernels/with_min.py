"""Kernels for Q2_K, Q4_K and Q5_K: weights as scale * level - minimum, both as small codes of a super-block's two factors."""

from typing import Any

import numpy as np

from quantize.kernels.lanes import LANES, load, load16, select, splat, store
from quantize.kernels.search import (
    clamp,
    inlined,
    nearest,
    search_scale_and_min,
    search_unsigned_levels,
    to_half,
)
from quantize.kernels.tile import (
    SUPER,
    Tile,
    keep_factor,
    kernel,
    new_tile,
    put_bit,
    put_half,
    put_low_2_bits,
    put_low_4_bits,
    turn,
    weigh,
    weigh_by_size,
)


@inlined
def _search(
    tile: Tile,
    rows: Any,
    importance: Any,
    first: int,
    n: int,
    top: int,
    start: float,
    step: float,
    n_steps: int,
) -> int:
    """Find the scales and minima of the super-blocks from `first` on, as codes; returns the number of lanes in use.

    The grid of scales (start, step, n_steps) is for no importance matrix; with one there is a finer grid for all types.
    """
    count: int = min(LANES, rows.size // SUPER - first)
    turn(rows, first, count, SUPER, tile.x)
    weighted = importance.size > 0
    if weighted:
        weigh(tile, importance, first, count, 1.0 if n == 16 else 2.0, n)
        start, step, n_steps = -0.9, 0.05, 36
    else:
        weigh_by_size(tile, n)
    n_sub, code_top = SUPER // n, 15 if n == 16 else 63
    for j in range(n_sub):
        part = slice(j * n * LANES, (j + 1) * n * LANES)
        scale, minimum, inverse, base = search_scale_and_min(
            tile.x[part],
            tile.weights[part],
            tile.scratch,
            n,
            top,
            start,
            step,
            n_steps,
            n == 16 and not weighted,
        )
        store(tile.scales, j * LANES, scale)
        store(tile.mins, j * LANES, minimum)
        store(tile.inverses, j * LANES, inverse)
        store(tile.bases, j * LANES, base)
    if weighted:
        d = to_half(search_unsigned_levels(tile.scales, tile.sums, tile.codes, n_sub, code_top))
        dmin = to_half(search_unsigned_levels(tile.mins, tile.sums, tile.min_codes, n_sub, code_top))
    else:
        d = _code_by_largest(tile.scales, tile.codes, n_sub, code_top)
        dmin = _code_by_largest(tile.mins, tile.min_codes, n_sub, code_top)
    keep_factor(tile, 0, d)
    keep_factor(tile, 1, dmin)
    return count


@inlined
def _code_by_largest(values: Any, codes: Any, n_sub: int, top: int) -> Any:
    """Scales or minima as codes, the largest as `top`; returns the factor as half-precision bits."""
    largest = splat(0.0)
    for j in range(n_sub):
        v = load(values, j * LANES)
        largest = select(v > largest, v, largest)
    inverse = select(largest > 0.0, top / largest, 0.0)
    for j in range(n_sub):
        store(codes, j * LANES, nearest(inverse * load(values, j * LANES)) & 0xFF)
    return to_half(largest / top)


@inlined
def _round(tile: Tile, rows: Any, block: int, k: int, n: int, top: int) -> None:
    """Return the final levels of super-block `block`, in lane k: of (x + min) / scale, or the search's where the scale is stored as 0."""
    for j in range(SUPER // n):
        at = j * LANES + k
        scale = tile.factors[k] * np.float32(tile.codes[at])
        minimum = tile.factors[LANES + k] * np.float32(tile.min_codes[at])
        for i in range(j * n, j * n + n, 16):
            v = load16(rows, block * SUPER + i)
            if scale != 0:
                levels = nearest((v + minimum) / scale)
            else:
                levels = nearest(tile.inverses[at] * (v - tile.bases[at]))
            store(tile.levels, i, clamp(levels, 0, top))


@inlined
def _put_codes_of_4_bits(tile: Tile, k: int, out: Any, at: int) -> None:
    """Sixteen scales and minima in 16 bytes; the tile's codes become what these bytes say."""
    codes, min_codes = tile.codes, tile.min_codes
    for j in range(16):
        a = j * LANES + k
        out[at + j] = (codes[a] | min_codes[a] << 4) & 0xFF
        codes[a], min_codes[a] = out[at + j] & 15, out[at + j] >> 4


@inlined
def _put_codes_of_6_bits(tile: Tile, k: int, out: Any, at: int) -> None:
    """Eight scales and eight minima in 12 bytes; the tile's codes become what these bytes say."""
    codes, min_codes = tile.codes, tile.min_codes
    for j in range(4):
        a, b = j * LANES + k, (j + 4) * LANES + k
        out[at + j] = (codes[a] | codes[b] >> 4 << 6) & 0xFF
        out[at + 4 + j] = (min_codes[a] | min_codes[b] >> 4 << 6) & 0xFF
        out[at + 8 + j] = (codes[b] & 15 | (min_codes[b] & 15) << 4) & 0xFF
        codes[a], codes[b] = codes[a] & 63, codes[b] & 15 | out[at + j] >> 6 << 4
        min_codes[a], min_codes[b] = min_codes[a] & 63, min_codes[b] & 15 | out[at + 4 + j] >> 6 << 4


@inlined
def _limit_codes(tile: Tile) -> None:
    for j in range(8):
        for codes in (tile.codes, tile.min_codes):
            code = load(codes, j * LANES)
            store(codes, j * LANES, select(code > 63, 63, code))


@kernel
def q2_k(rows: Any, importance: Any, out: Any) -> None:
    tile = new_tile()
    for first in range(0, rows.size // SUPER, LANES):
        for k in range(_search(tile, rows, importance, first, 16, 3, -0.5, 0.1, 15)):
            at = (first + k) * 84
            _put_codes_of_4_bits(tile, k, out, at)
            _round(tile, rows, first + k, k, 16, 3)
            put_low_2_bits(tile.levels, out, at + 16)
            put_half(out, at + 80, tile.halves[k])
            put_half(out, at + 82, tile.halves[LANES + k])


@kernel
def q4_k(rows: Any, importance: Any, out: Any) -> None:
    tile = new_tile()
    for first in range(0, rows.size // SUPER, LANES):
        count = _search(tile, rows, importance, first, 32, 15, -1.0, 0.1, 20)
        if not importance.size:
            _limit_codes(tile)
        for k in range(count):
            at = (first + k) * 144
            put_half(out, at, tile.halves[k])
            put_half(out, at + 2, tile.halves[LANES + k])
            _put_codes_of_6_bits(tile, k, out, at + 4)
            _round(tile, rows, first + k, k, 32, 15)
            put_low_4_bits(tile.levels, out, at + 16)


@kernel
def q5_k(rows: Any, importance: Any, out: Any) -> None:
    tile = new_tile()
    for first in range(0, rows.size // SUPER, LANES):
        count = _search(tile, rows, importance, first, 32, 31, -0.5, 0.1, 15)
        _limit_codes(tile)
        for k in range(count):
            at = (first + k) * 176
            put_half(out, at, tile.halves[k])
            put_half(out, at + 2, tile.halves[LANES + k])
            _put_codes_of_6_bits(tile, k, out, at + 4)
            _round(tile, rows, first + k, k, 32, 31)
            put_bit(tile.levels, 4, out, at + 16)
            put_low_4_bits(tile.levels, out, at + 48)
