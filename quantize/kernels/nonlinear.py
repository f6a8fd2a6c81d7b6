"""Kernels for IQ4_NL and IQ4_XS: weights as scale * one of sixteen values that are denser around zero.

IQ4_NL has a scale for each 32 weights; IQ4_XS, for rows of 256, has codes of a common factor for them.
"""

from typing import Any

import numpy as np

from quantize.kernels.lanes import LANES, load, load16, select, splat, sqrt, store, to_float
from quantize.kernels.search import NOTHING, clamp, find_peak, inlined, nearest, to_half
from quantize.kernels.tile import SUPER, kernel, put_half, turn

BLOCK = 32
VALUES = np.array([-127, -104, -83, -65, -49, -35, -22, -10, 1, 13, 25, 38, 53, 69, 89, 113], np.float32)
# Between two neighbors, exactly; there the higher one is taken, as by ggml's comparison of the rounded distances.
MIDDLES = (VALUES[:-1] + VALUES[1:]) / 2


@inlined
def _nearest_value(x: Any) -> Any:
    value = select(x < MIDDLES[0], VALUES[0], x * 0.0 + VALUES[1])
    for i in range(1, 15):
        value = select(x < MIDDLES[i], value, VALUES[i + 1])
    return value


@inlined
def _nearest_level(x: Any) -> Any:
    level = nearest(x * 0.0)
    for i in range(15):
        level = select(x < MIDDLES[i], level, i + 1)
    return level


@inlined
def _weigh(x: Any, weights: Any, n: int, weighted: bool) -> None:
    """Turn importances into weights importance * sqrt(2 * the mean square of n values + x**2); without them weights are x**2."""
    total = splat(0.0)
    for i in range(n):
        v = load(x, i * LANES)
        total = total + v * v
    sigma2 = total * (2 / n)
    for i in range(n):
        v = load(x, i * LANES)
        w = load(weights, i * LANES) * sqrt(sigma2 + v * v) if weighted else v * v
        store(weights, i * LANES, w)


@inlined
def _sums(x: Any, weights: Any, inverse: Any) -> tuple[Any, Any]:
    sum_xq = sum_q2 = splat(0.0)
    for i in range(BLOCK):
        v = load(x, i * LANES)
        q = _nearest_value(inverse * v)
        weighted = load(weights, i * LANES) * q
        sum_xq = sum_xq + weighted * v
        sum_q2 = sum_q2 + weighted * q
    return sum_xq, sum_q2


@inlined
def _search(x: Any, weights: Any) -> Any:
    """Find x ~ scale * value of least weighted squares, with the value of the largest size near either end of VALUES."""
    peak, size = find_peak(x, BLOCK)
    sum_xq, sum_q2 = _sums(x, weights, 1.0 / (-peak / VALUES[0]))
    scale = select(sum_q2 > 0.0, sum_xq / sum_q2, 0.0)
    best = scale * sum_xq
    for s in range(-7, 8):
        sum_xq, sum_q2 = _sums(x, weights, (np.float32(s) + VALUES[0]) / peak)
        better = (sum_q2 > 0.0) & (sum_xq * sum_xq > best * sum_q2)
        scale = select(better, sum_xq / sum_q2, scale)
        best = select(better, scale * sum_xq, best)
    return select(size < NOTHING, 0.0, scale)


@inlined
def _put_levels(rows: Any, start: int, inverse: float, out: Any, at: int) -> None:
    """Weights i and i + 16 of a block of 32 share a byte."""
    a = _nearest_level(load16(rows, start) * inverse)
    b = _nearest_level(load16(rows, start + 16) * inverse)
    store(out, at, a | b << 4)


@kernel
def iq4_nl(rows: Any, importance: Any, out: Any) -> None:
    n_blocks = rows.size // BLOCK
    x, weights = np.empty(BLOCK * LANES, np.float32), np.empty(BLOCK * LANES, np.float32)
    halves, inverses = np.empty(LANES, np.int32), np.empty(LANES, np.float32)
    for first in range(0, n_blocks, LANES):
        count = min(LANES, n_blocks - first)
        turn(rows, first, count, BLOCK, x)
        if importance.size:
            turn(importance, first, count, BLOCK, weights)
        _weigh(x, weights, BLOCK, importance.size > 0)
        scale = _search(x, weights)
        store(halves, 0, to_half(scale))
        store(inverses, 0, select(scale != 0.0, 1.0 / scale, 0.0))
        for k in range(count):
            at = (first + k) * 18
            put_half(out, at, halves[k])
            _put_levels(rows, (first + k) * BLOCK, inverses[k], out, at + 2)


@kernel
def iq4_xs(rows: Any, importance: Any, out: Any) -> None:
    n_blocks, n_sub = rows.size // SUPER, SUPER // BLOCK
    x, weights = np.empty(SUPER * LANES, np.float32), np.empty(SUPER * LANES, np.float32)
    halves, scales = np.empty(LANES, np.int32), np.empty(n_sub * LANES, np.float32)
    codes, inverses = np.empty(n_sub * LANES, np.int32), np.empty(n_sub * LANES, np.float32)
    for first in range(0, n_blocks, LANES):
        count = min(LANES, n_blocks - first)
        turn(rows, first, count, SUPER, x)
        if importance.size:
            turn(importance, first, count, SUPER, weights)
        _weigh(x, weights, SUPER, importance.size > 0)
        for j in range(n_sub):
            part = slice(j * BLOCK * LANES, (j + 1) * BLOCK * LANES)
            store(scales, j * LANES, _search(x[part], weights[part]))
        largest, _ = find_peak(scales, n_sub)
        d = -largest / 32.0
        to_code = select(d != 0.0, 1.0 / d, 0.0)
        store(halves, 0, to_half(d))
        for j in range(n_sub):
            code = clamp(nearest(to_code * load(scales, j * LANES)), -32, 31)
            scale = d * to_float(code)
            store(codes, j * LANES, code + 32)
            store(inverses, j * LANES, select(scale != 0.0, 1.0 / scale, 0.0))
        for k in range(count):
            at = (first + k) * 136
            put_half(out, at, halves[k])
            high = 0
            for j in range(n_sub):
                high |= codes[j * LANES + k] >> 4 << 2 * j
                _put_levels(
                    rows, (first + k) * SUPER + BLOCK * j, inverses[j * LANES + k], out, at + 8 + 16 * j
                )
            put_half(out, at + 2, high)
            for j in range(n_sub // 2):
                low, next_low = codes[2 * j * LANES + k] & 15, codes[(2 * j + 1) * LANES + k] & 15
                out[at + 4 + j] = low | next_low << 4
