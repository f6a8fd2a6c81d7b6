"""Kernels for IQ2_XXS, IQ2_XS and IQ2_S: groups of eight weights out of a grid of 256, 512 or 1024, signs apart, a scale for each 16 or 32 weights."""

from typing import Any

import numpy as np

from quantize.kernels.grid_block import (
    Block,
    block_of,
    code_scales,
    make_signs_even,
    new_lot,
    set_scales,
    take,
    turn_signs,
    weigh,
)
from quantize.kernels.grid_search import SubBlock, new_sub_block, number, search, trials
from quantize.kernels.grids import grid
from quantize.kernels.lanes import LANES, store
from quantize.kernels.search import inlined, search_unsigned_levels
from quantize.kernels.tile import SUPER, kernel, put_half, turn

SIZE, TOP = 8, 2
XXS, XS, S = 0, 1, 2
TOGETHER = LANES // 8  # super-blocks that fill the lanes with sub-blocks of 32


def iq2_xxs(rows: Any, importance: Any, out: Any) -> None:
    _quantize(rows, importance, out, grid("IQ2_XXS"), trials(6, 5, 0.1), XXS)


def iq2_xs(rows: Any, importance: Any, out: Any) -> None:
    _quantize(rows, importance, out, grid("IQ2_XS"), trials(9, 5, 0.1), XS)


def iq2_s(rows: Any, importance: Any, out: Any) -> None:
    _quantize(rows, importance, out, grid("IQ2_S"), trials(9, 5, 0.1), S)


@kernel
def _quantize(rows: Any, importance: Any, out: Any, grid: Any, ends: Any, kind: int) -> None:
    lot, b = new_lot(TOGETHER), new_sub_block()
    n_bytes = 66 if kind == XXS else 74 if kind == XS else 82
    n_blocks = rows.size // SUPER
    starts = np.zeros(TOGETHER * 16, np.float32)
    x, weights = np.empty(32 * LANES, np.float32), np.empty(32 * LANES, np.float32)
    levels = np.empty(32 * LANES, np.int32)
    for first in range(0, n_blocks, TOGETHER):
        count = min(TOGETHER, n_blocks - first)
        for k in range(count):
            block = block_of(lot, k)
            weigh(block, rows, importance, (first + k) * SUPER, kind == S, 0.25)
            if kind != S:
                make_signs_even(block)
        if kind == XXS:
            turn(lot.x, 0, count * 8, 32, x)
            turn(lot.weights, 0, count * 8, 32, weights)
            store(starts, 0, search_unsigned_levels(x, weights, levels, 32, TOP + 2))
        for k in range(count):
            block, at = block_of(lot, k), (first + k) * n_bytes
            out[at : at + n_bytes] = 0
            _search(block, b, grid, ends, out, at, kind, starts[k * 8 : k * 8 + 8])
            if code_scales(block, 0.9875 if kind == S else 1.0):
                put_half(out, at, block.half[0])
                _put_scales(block, out, at, kind)
            elif kind != S:
                out[at : at + n_bytes] = 0


@inlined
def _search(
    block: Block, b: SubBlock, grid: Any, ends: Any, out: Any, at: int, kind: int, starts: Any
) -> None:
    """Find the scales of a super-block's sub-blocks, and write what else is stored of them."""
    n = 32 if kind == XXS else 16
    least = np.float32(1e-8) if kind == S else np.float32(1e-15)
    block.scales[:] = 0
    for j in range(SUPER // n):
        largest = take(b, block, j * n, n)
        start = largest / np.float32(5)
        if kind == XXS:  # where the levels may be 0 to 4, on no grid
            start = starts[j]
            largest = start * np.float32(3)
        g = j * n // SIZE
        if (largest <= 0) if kind == XXS else (largest < least):
            block.signs[g : g + n // SIZE] = 0
            continue
        set_scales(b, ends, largest)
        scale = search(b, grid, n, SIZE, TOP, 13 if kind == XXS else 19, start, 2 if kind == XXS else 0)
        if scale < 0:
            scale = -scale
            turn_signs(block, g, g + n // SIZE, 255 if kind == S else 127)
        block.scales[j] = scale
        for i in range(n // SIZE):
            _put_group(number(grid, b.chosen[i], SIZE, TOP), block.signs[g + i], out, at, g + i, kind)


@inlined
def _put_group(n: int, signs: int, out: Any, at: int, g: int, kind: int) -> None:
    """Write the number of group g in the grid and, but for IQ2_XXS, its signs."""
    if kind == XXS:
        out[at + 2 + g // 4 * 8 + g % 4] = n
    elif kind == XS:
        put_half(out, at + 2 + 2 * g, n | signs << 9)
    else:
        out[at + 2 + g] = n & 255
        out[at + 34 + g] = signs
        out[at + 66 + g // 4] |= n >> 8 << 2 * (g % 4)


@inlined
def _put_scales(block: Block, out: Any, at: int, kind: int) -> None:
    codes, signs = block.codes, block.signs
    for j in range(8):
        if kind == XXS:
            bits = signs[4 * j] | signs[4 * j + 1] << 7 | signs[4 * j + 2] << 14 | signs[4 * j + 3] << 21
            put_half(out, at + 6 + 8 * j, bits)
            put_half(out, at + 8 + 8 * j, bits >> 16 | codes[j] << 12)
        else:
            out[at + (66 if kind == XS else 74) + j] = codes[2 * j] | codes[2 * j + 1] << 4
