"""Kernels for Q3_K and Q6_K: weights as scale * level, levels of both signs, scales as small codes of a super-block's factor."""

from typing import Any

import numpy as np

from quantize.kernels.lanes import LANES, load, load16, select, store
from quantize.kernels.search import (
    NOTHING,
    clamp,
    find_peak,
    inlined,
    nearest,
    search_scale,
    search_signed_levels,
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
    turn,
    weigh,
    weigh_by_square,
)

N_SUB = 16


@inlined
def _as_int8(codes: Any) -> Any:
    return codes << 24 >> 24


@inlined
def _search_q6(tile: Tile, rows: Any, importance: Any, first: int) -> int:
    """Find the scales of the super-blocks from `first` on, as codes -128..127; returns the number of lanes in use."""
    count: int = min(LANES, rows.size // SUPER - first)
    turn(rows, first, count, SUPER, tile.x)
    if importance.size:
        turn(importance, first, count, SUPER, tile.weights)
    else:
        weigh_by_square(tile)
    for j in range(N_SUB):
        part = slice(j * 16 * LANES, (j + 1) * 16 * LANES)
        scale, inverse = search_scale(tile.x[part], tile.weights[part], tile.scratch, 16, 32)
        store(tile.scales, j * LANES, scale)
        store(tile.inverses, j * LANES, inverse)
    largest, size = find_peak(tile.scales, N_SUB)
    nothing = size < NOTHING
    to_code = -128.0 / largest
    keep_factor(tile, 0, select(nothing, 0, to_half(1.0 / to_code)))
    for j in range(N_SUB):
        code = nearest(to_code * load(tile.scales, j * LANES))
        store(tile.codes, j * LANES, select(nothing, 0, _as_int8(select(code > 127, 127, code))))
        store(tile.inverses, j * LANES, select(nothing, np.inf, load(tile.inverses, j * LANES)))
    return count


@inlined
def _round_q6(tile: Tile, rows: Any, block: int, k: int) -> None:
    """Return the final levels of super-block `block`, in lane k: of x / scale, or the search's where the scale is stored as 0."""
    for j in range(N_SUB):
        scale = tile.factors[k] * np.float32(tile.codes[j * LANES + k])
        inverse = tile.inverses[j * LANES + k]
        v = load16(rows, block * SUPER + 16 * j)
        levels = nearest(v * 0.0)
        if scale != 0:
            levels = clamp(nearest(v / scale), -32, 31) + 32
        elif inverse < np.inf:
            levels = clamp(nearest(inverse * v), -32, 31) + 32
        store(tile.levels, 16 * j, levels)


@kernel
def q6_k(rows: Any, importance: Any, out: Any) -> None:
    tile = new_tile()
    for first in range(0, rows.size // SUPER, LANES):
        for k in range(_search_q6(tile, rows, importance, first)):
            _round_q6(tile, rows, first + k, k)
            at = (first + k) * 210
            for i in (0, 16, 128, 144):  # weights i, i + 32, i + 64 and i + 96 share three bytes
                a, b = load16(tile.levels, i), load16(tile.levels, i + 32)
                c, d = load16(tile.levels, i + 64), load16(tile.levels, i + 96)
                low, high = at + i // 128 * 64 + i % 128, at + 128 + i // 128 * 32 + i % 128
                store(out, low, a & 15 | (c & 15) << 4)
                store(out, low + 32, b & 15 | (d & 15) << 4)
                store(out, high, a >> 4 | b >> 4 << 2 | c >> 4 << 4 | d >> 4 << 6)
            for j in range(N_SUB):
                out[at + 192 + j] = tile.codes[j * LANES + k] & 0xFF
            put_half(out, at + 208, tile.halves[k])


@inlined
def _search_q3(tile: Tile, rows: Any, importance: Any, first: int) -> int:
    """Find the scales of the super-blocks from `first` on, as codes 0..63 for -32..31; returns the number of lanes in use."""
    count: int = min(LANES, rows.size // SUPER - first)
    turn(rows, first, count, SUPER, tile.x)
    if importance.size:
        weigh(tile, importance, first, count, 2.0, 16)
    else:
        weigh_by_square(tile)
    for j in range(N_SUB):
        part = slice(j * 16 * LANES, (j + 1) * 16 * LANES)
        x, weights, found = tile.x[part], tile.weights[part], tile.found[part]
        if importance.size:
            scale, inverse = search_scale(x, weights, tile.scratch, 16, 4)
            for i in range(16):
                level = clamp(nearest(inverse * load(x, i * LANES)), -4, 3) + 4
                store(found, i * LANES, select(inverse < np.inf, level, 0))
        else:
            scale = search_signed_levels(x, weights, found, 16, 4)
        store(tile.scales, j * LANES, scale)
    if importance.size:
        d, to_code = search_scale(tile.scales, tile.sums, tile.scratch, N_SUB, 32)
        some = to_code < np.inf
    else:
        largest, _ = find_peak(tile.scales, N_SUB)
        to_code = -32.0 / largest
        some = largest != 0.0
        d = select(some, 1.0 / to_code, 0.0)
    keep_factor(tile, 0, to_half(d))
    for j in range(N_SUB):
        code = nearest(to_code * load(tile.scales, j * LANES))
        code = clamp(code if importance.size else _as_int8(code), -32, 31) + 32
        store(tile.codes, j * LANES, select(some, code, 0))
    return count


@inlined
def _round_q3(tile: Tile, rows: Any, block: int, k: int) -> None:
    """Return the final levels of super-block `block`, in lane k: of x / scale, or the search's where the scale is stored as 0."""
    for j in range(N_SUB):
        scale = tile.factors[k] * np.float32(tile.codes[j * LANES + k] - 32)
        if scale != 0:
            v = load16(rows, block * SUPER + 16 * j)
            store(tile.levels, 16 * j, clamp(nearest(v / scale), -4, 3) + 4)
        else:
            for i in range(16 * j, 16 * j + 16):
                tile.levels[i] = tile.found[i * LANES + k]


@kernel
def q3_k(rows: Any, importance: Any, out: Any) -> None:
    tile = new_tile()
    for first in range(0, rows.size // SUPER, LANES):
        for k in range(_search_q3(tile, rows, importance, first)):
            _round_q3(tile, rows, first + k, k)
            at = (first + k) * 110
            put_bit(tile.levels, 2, out, at)
            put_low_2_bits(tile.levels, out, at + 32)
            for j in range(4):  # sixteen codes of 6 bits in 12 bytes
                a, b = tile.codes[j * LANES + k], tile.codes[(j + 4) * LANES + k]
                c, d = tile.codes[(j + 8) * LANES + k], tile.codes[(j + 12) * LANES + k]
                out[at + 96 + j] = a & 15 | (c & 15) << 4
                out[at + 100 + j] = b & 15 | (d & 15) << 4
                out[at + 104 + j] = a >> 4 | b >> 4 << 2 | c >> 4 << 4 | d >> 4 << 6
            put_half(out, at + 108, tile.halves[k])
