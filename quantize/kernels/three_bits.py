"""Kernels for IQ3_XXS and IQ3_S: groups of four weights out of a grid of 256 or 512, signs apart, a scale for each 32 weights."""

from typing import Any

import numpy as np

from quantize.kernels.grid_block import (
    Block,
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
from quantize.kernels.search import inlined
from quantize.kernels.tile import SUPER, kernel, put_half

N, SIZE, TOP = 32, 4, 7


def iq3_xxs(rows: Any, importance: Any, out: Any) -> None:
    _quantize(rows, importance, out, grid("IQ3_XXS"), trials(15, 15, 0.2), True)


def iq3_s(rows: Any, importance: Any, out: Any) -> None:
    _quantize(rows, importance, out, grid("IQ3_S"), trials(9, 15, 0.2), False)


@kernel
def _quantize(rows: Any, importance: Any, out: Any, grid: Any, ends: Any, small: bool) -> None:
    block, b = new_lot(1), new_sub_block()
    n_bytes = 98 if small else 110
    least = np.float32(1e-8) if small else np.float32(1e-45)
    for k in range(rows.size // SUPER):
        at = k * n_bytes
        out[at : at + n_bytes] = 0
        weigh(block, rows, importance, k * SUPER, True, 0.0)
        if small:
            make_signs_even(block)
        block.scales[:] = 0
        n_stored = 0
        for j in range(SUPER // N):
            largest = take(b, block, j * N, N)
            if largest < least:
                block.signs[4 * j : 4 * j + 4] = 0
                continue
            set_scales(b, ends, largest)
            start = largest / np.float32(15)
            scale = search(b, grid, N, SIZE, TOP, 31 if small else 19, start, 0 if small else 1)
            if scale < 0:
                scale = -scale
                turn_signs(block, 4 * j, 4 * j + 4, 127 if small else 255)
            block.scales[j] = scale
            if small:
                _put_small(b, grid, out, at + 2 + 8 * j)
            else:
                _put(b, grid, block, out, at, j, n_stored)
            n_stored += 1
        if code_scales(block, 1.0125 if small else 1.033):
            put_half(out, at, block.half[0])
            _put_scales(block, out, at, small)
        elif small:
            out[at : at + n_bytes] = 0


@inlined
def _put_small(b: SubBlock, grid: Any, out: Any, at: int) -> None:
    for g in range(N // SIZE):
        out[at + g] = number(grid, b.chosen[g], SIZE, TOP)


@inlined
def _put(b: SubBlock, grid: Any, block: Block, out: Any, at: int, j: int, n_stored: int) -> None:
    """As ggml does, the low bytes and the signs of a sub-block lie where those of a sub-block of zeros before it would."""
    for g in range(N // SIZE):
        n = number(grid, b.chosen[g], SIZE, TOP)
        out[at + 2 + 8 * n_stored + g] = n & 255
        out[at + 66 + j] |= n >> 8 << g
    for g in range(4):
        out[at + 74 + 4 * n_stored + g] = block.signs[4 * j + g]


@inlined
def _put_scales(block: Block, out: Any, at: int, small: bool) -> None:
    if small:
        for j in range(SUPER // N):
            signs = block.signs[4 * j : 4 * j + 4]
            bits = signs[0] | signs[1] << 7 | signs[2] << 14 | signs[3] << 21
            put_half(out, at + 66 + 4 * j, bits)
            put_half(out, at + 68 + 4 * j, bits >> 16 | block.codes[j] << 12)
    else:
        for j in range(4):
            out[at + 106 + j] = block.codes[2 * j] | block.codes[2 * j + 1] << 4
