"""A tile of LANES super-blocks of 256 weights, one per lane, and the steps that the K-quants share.

A kernel is called as kernel(rows, importance, out): `rows` are the weights of all rows (float32), `importance` is one row's importance
matrix (float32; empty for none), `out` takes the blocks (uint8). All three are one-dimensional and C-contiguous, and rows are whole
blocks. A kernel fills a tile, searches the scales of its sub-blocks (search.py), then rounds and packs one super-block after
the other. What is computed is ggml's, and so are the layouts of the blocks (ggml-common.h).
"""

from typing import Any, NamedTuple

import numpy as np
from numba import config, njit

from quantize.kernels.lanes import LANES, fabs, load, load16, splat, sqrt, store
from quantize.kernels.search import from_half, inlined

SUPER = 256
# kernels.py names the folder for compiled code while it imports the kernels; otherwise they are compiled again in each process.
kernel = njit(nogil=True, cache=bool(config.CACHE_DIR), error_model="numpy")


class Tile(NamedTuple):
    """What is known about LANES super-blocks; [i * LANES + k] is about weight or sub-block i of lane k."""

    x: Any
    weights: Any
    sums: Any  # of the weights of each sub-block
    scratch: Any
    found: Any  # Q3_K: the levels that the search found
    scales: Any
    mins: Any
    inverses: Any  # with `bases` what the levels of the search were rounded by
    bases: Any
    codes: Any  # scales and minima as they are stored
    min_codes: Any
    halves: Any  # d, then dmin, as they are stored
    factors: Any  # d, then dmin, as they are read
    levels: Any  # the final levels of one super-block


@inlined
def new_tile() -> Tile:
    return Tile(
        x=np.empty(SUPER * LANES, np.float32),
        weights=np.empty(SUPER * LANES, np.float32),
        sums=np.empty(16 * LANES, np.float32),
        scratch=np.empty(32 * LANES, np.float32),
        found=np.empty(SUPER * LANES, np.int32),
        scales=np.empty(16 * LANES, np.float32),
        mins=np.empty(16 * LANES, np.float32),
        inverses=np.empty(16 * LANES, np.float32),
        bases=np.empty(16 * LANES, np.float32),
        codes=np.empty(16 * LANES, np.int32),
        min_codes=np.empty(16 * LANES, np.int32),
        halves=np.empty(2 * LANES, np.int32),
        factors=np.empty(2 * LANES, np.float32),
        levels=np.empty(SUPER, np.uint8),
    )


@inlined
def turn(source: Any, first: int, count: int, size: int, turned: Any) -> None:
    """Copy `count` blocks of `size` from `first` on into the lanes, zeros into the rest; `source` starts again after its end."""
    period = source.size // size
    for k in range(LANES):
        start = (first + k) % period * size
        for i in range(size):
            turned[i * LANES + k] = source[start + i] if k < count else np.float32(0)


@inlined
def weigh(tile: Tile, importance: Any, first: int, count: int, factor: float, n: int) -> None:
    """Weights importance * sqrt(factor * the super-block's mean square + x**2), and their sums by sub-blocks of n."""
    turn(importance, first, count, SUPER, tile.weights)
    total = splat(0.0)
    for i in range(SUPER):
        v = load(tile.x, i * LANES)
        total = total + v * v
    sigma2 = factor * total / SUPER
    for j in range(SUPER // n):
        total = splat(0.0)
        for i in range(j * n, j * n + n):
            v = load(tile.x, i * LANES)
            w = load(tile.weights, i * LANES) * sqrt(sigma2 + v * v)
            store(tile.weights, i * LANES, w)
            total = total + w
        store(tile.sums, j * LANES, total)


@inlined
def weigh_by_square(tile: Tile) -> None:
    """Weights x**2."""
    for i in range(SUPER):
        v = load(tile.x, i * LANES)
        store(tile.weights, i * LANES, v * v)


@inlined
def weigh_by_size(tile: Tile, n: int) -> None:
    """Weights |x|; for sub-blocks of 32 plus the root of the sub-block's mean square."""
    for j in range(SUPER // n):
        mean = splat(0.0)
        if n == 32:
            for i in range(j * n, j * n + n):
                v = load(tile.x, i * LANES)
                mean = mean + v * v
            mean = sqrt(mean / n)
        for i in range(j * n, j * n + n):
            store(tile.weights, i * LANES, mean + fabs(load(tile.x, i * LANES)))


@inlined
def keep_factor(tile: Tile, which: int, half: Any) -> None:
    """Keep d (0) or dmin (1), given as half-precision bits."""
    store(tile.halves, which * LANES, half)
    store(tile.factors, which * LANES, from_half(half))


@inlined
def put_half(out: Any, at: int, half: int) -> None:
    out[at] = half & 0xFF
    out[at + 1] = half >> 8 & 0xFF


@inlined
def put_bit(levels: Any, bit: int, out: Any, at: int) -> None:
    """One bit of 256 levels in 32 bytes: weights i, i + 32, ... i + 224 share a byte."""
    for i in range(0, 32, 16):
        packed = load16(levels, i) >> bit & 1
        for j in range(1, 8):
            packed = packed | (load16(levels, 32 * j + i) >> bit & 1) << j
        store(out, at + i, packed)


@inlined
def put_low_2_bits(levels: Any, out: Any, at: int) -> None:
    """Two bits of 256 levels in 64 bytes: weights i, i + 32, i + 64, i + 96 of a half share a byte."""
    for half in range(2):
        for i in range(0, 32, 16):
            packed = load16(levels, 128 * half + i) & 3
            for j in range(1, 4):
                packed = packed | (load16(levels, 128 * half + 32 * j + i) & 3) << 2 * j
            store(out, at + 32 * half + i, packed)


@inlined
def put_low_4_bits(levels: Any, out: Any, at: int) -> None:
    """Four bits of 256 levels in 128 bytes: weights i and i + 32 of a quarter share a byte."""
    for i in range(0, 128, 16):
        weight = i // 32 * 64 + i % 32
        store(out, at + i, load16(levels, weight) & 15 | (load16(levels, weight + 32) & 15) << 4)
