"""The scale searches of llama.cpp's block formats, over lanes: the scale (and minimum) with the least rounding error.

What is searched, and in which order its sums are made, is ggml's (ggml-quants.c of llama.cpp 0c1e57098): a quantizer that differs in
one rounding writes other bytes. Every function takes its sub-blocks element-major: value i of lane k is at [i * LANES + k].
"""

from typing import Any

import numpy as np
from numba import njit

from quantize.kernels.lanes import LANES, bits, fabs, from_bits, load, pattern, select, splat, store, to_float

Lanes = Any  # a lanes.Lanes while numba compiles
inlined = njit(nogil=True, forceinline=True, error_model="numpy")

# Sub-blocks without a value of at least this size are stored as zeros.
NOTHING = 1e-15


@inlined
def nearest(values: Lanes) -> Lanes:
    """Round to the nearest int, ties to even, by adding 1.5 * 2**23; beyond +-2**22 the result is ggml's, not the nearest int."""
    return (bits(values + 12582912.0) & 0x7FFFFF) - 0x400000


@inlined
def clamp(levels: Lanes, low: int, high: int) -> Lanes:
    levels = select(levels < low, low, levels)
    return select(levels > high, high, levels)


@inlined
def to_half(values: Lanes) -> Lanes:
    """Return the bit patterns of the nearest IEEE half-precision numbers, ties to even; beyond their range infinity."""
    pattern = bits(values)
    size = pattern & 0x7FFFFFFF
    normal = (size + 0xFFF + ((size >> 13) & 1) - (112 << 23)) >> 13
    # 0.5 in float32 has the smallest half's spacing, 2**-24, so adding it rounds a subnormal half.
    subnormal = bits(from_bits(size) + 0.5) - 0x3F000000
    half = select(size < 0x38800000, subnormal, normal)
    half = select(size >= 0x47800000, 0x7C00, half)
    half = select(size > 0x7F800000, 0x7E00, half)
    return half | ((pattern >> 16) & 0x8000)


@inlined
def from_half(halves: Lanes) -> Lanes:
    """Return the float32 values of half-precision bit patterns."""
    size = halves & 0x7FFF
    value = select(size < 0x400, to_float(size) * 2.0**-24, from_bits((size << 13) + (112 << 23)))
    value = select(size >= 0x7C00, from_bits((size << 13) + (224 << 23)), value)
    return from_bits(bits(value) | ((halves & 0x8000) << 16))


@inlined
def _error(x: Any, weights: Any, levels: Any, n: int, scale: Lanes, low: Lanes, absolute: bool) -> Lanes:
    """Return the weighted sum of squared (or absolute) differences of scale * level + low from x."""
    error = splat(0.0)
    for i in range(n):
        difference = scale * load(levels, i * LANES) + low - load(x, i * LANES)
        penalty = fabs(difference) if absolute else difference * difference
        error = error + load(weights, i * LANES) * penalty
    return error


@inlined
def search_scale_and_min(
    x: Any,
    weights: Any,
    levels: Any,
    n: int,
    top: int,
    start: float,
    step: float,
    n_steps: int,
    absolute: bool,
) -> tuple[Lanes, Lanes, Lanes, Lanes]:
    """Find x ~ scale * level - minimum with levels 0..top and minimum >= 0.

    Tries the scales that map the range onto `top + start + step * s` levels for s = 0..n_steps; each is improved by weighted least
    squares, and a better one moves the minimum for the tries after it. `levels` is scratch space of n * LANES floats.
    Gives (scale, minimum, inverse, base): the levels of the best try are clamp(nearest(inverse * (x - base))).
    """
    low = high = load(x, 0)
    sum_w = load(weights, 0)
    sum_x = sum_w * low
    for i in range(1, n):
        v, w = load(x, i * LANES), load(weights, i * LANES)
        low = select(v < low, v, low)
        high = select(v > high, v, high)
        sum_w = sum_w + w
        sum_x = sum_x + w * v
    low = select(low > 0.0, 0.0, low)
    flat = high == low
    inverse, base = top / (high - low), low
    for i in range(n):
        store(levels, i * LANES, to_float(clamp(nearest(inverse * (load(x, i * LANES) - low)), 0, top)))
    scale = 1.0 / inverse
    best = _error(x, weights, levels, n, scale, low, absolute)
    for s in range(n_steps + 1):
        trial = (np.float32(start) + np.float32(step) * np.float32(s) + np.float32(top)) / (high - low)
        sum_l = sum_l2 = sum_xl = splat(0.0)
        for i in range(n):
            v, w = load(x, i * LANES), load(weights, i * LANES)
            level = to_float(clamp(nearest(trial * (v - low)), 0, top))
            store(levels, i * LANES, level)
            weighted = w * level
            sum_l = sum_l + weighted
            sum_l2 = sum_l2 + weighted * level
            sum_xl = sum_xl + weighted * v
        det = sum_w * sum_l2 - sum_l * sum_l
        new_scale = (sum_w * sum_xl - sum_x * sum_l) / det
        new_low = (sum_l2 * sum_x - sum_l * sum_xl) / det
        above = new_low > 0.0
        new_scale = select(above, sum_xl / sum_l2, new_scale)
        new_low = select(above, 0.0, new_low)
        error = _error(x, weights, levels, n, new_scale, new_low, absolute)
        better = (det > 0.0) & (error < best)
        best = select(better, error, best)
        inverse = select(better, trial, inverse)
        base = select(better, low, base)
        scale = select(better, new_scale, scale)
        low = select(better, new_low, low)
    return select(flat, 0.0, scale), -low, select(flat, 0.0, inverse), base


@inlined
def find_peak(x: Any, n: int) -> tuple[Lanes, Lanes]:
    """Return the first value of the largest size, with its sign, and that size."""
    peak = size = splat(0.0)
    for i in range(n):
        v = load(x, i * LANES)
        larger = fabs(v) > size
        peak = select(larger, v, peak)
        size = select(larger, fabs(v), size)
    return peak, size


@inlined
def _sums(x: Any, weights: Any, products: Any, n: int, top: int, inverse: Lanes) -> tuple[Lanes, Lanes]:
    """Return the weighted sums of x * level and level**2 when x is rounded by `inverse`; `products` are weights * x."""
    sum_xl = sum_l2 = splat(0.0)
    for i in range(n):
        level = to_float(clamp(nearest(inverse * load(x, i * LANES)), -top, top - 1))
        sum_xl = sum_xl + load(products, i * LANES) * level
        sum_l2 = sum_l2 + load(weights, i * LANES) * level * level
    return sum_xl, sum_l2


@inlined
def search_scale(x: Any, weights: Any, products: Any, n: int, top: int) -> tuple[Lanes, Lanes]:
    """Find x ~ scale * level with levels -top..top-1 of least weighted squares.

    Tries the scales that put the value of the largest size on -top and on -top -+ 0.1 ... 0.9. `products` is scratch space of
    n * LANES floats. Gives (scale, inverse): the levels are clamp(nearest(inverse * x)), or all -top where inverse is infinite.
    """
    peak, size = find_peak(x, n)
    for i in range(n):
        store(products, i * LANES, load(weights, i * LANES) * load(x, i * LANES))
    inverse = np.float32(-top) / peak
    sum_xl, sum_l2 = _sums(x, weights, products, n, top, inverse)
    scale = select(sum_l2 != 0.0, sum_xl / sum_l2, 0.0)
    best = scale * sum_xl
    for s in range(-9, 10):
        if s == 0:
            continue
        trial = -(np.float32(top) + np.float32(0.1) * np.float32(s)) / peak
        sum_xl, sum_l2 = _sums(x, weights, products, n, top, trial)
        better = (sum_l2 > 0.0) & (sum_xl * sum_xl > best * sum_l2)
        inverse = select(better, trial, inverse)
        scale = select(better, sum_xl / sum_l2, scale)
        best = select(better, scale * sum_xl, best)
    nothing = size < NOTHING
    return select(nothing, 0.0, scale), select(nothing, np.inf, inverse)


@inlined
def _refine(
    x: Any, weights: Any, levels: Any, n: int, low: int, high: int, sum_xl: Lanes, sum_l2: Lanes
) -> tuple[Lanes, Lanes]:
    """Move single levels as long as it lowers the error, in up to five rounds; `low` 0 stands for unsigned bytes."""
    for _ in range(5):
        moved = splat(0.0) > 0.0
        for i in range(n):
            v, w, level = load(x, i * LANES), load(weights, i * LANES), load(levels, i * LANES)
            old = to_float(level)
            rest_xl = sum_xl - w * v * old
            rest_l2 = sum_l2 - w * old * old
            other = nearest(v * rest_l2 / rest_xl)
            other = clamp(other, low, high) if low < 0 else select(other > high, high, other)
            new = to_float(other)
            new_xl = rest_xl + w * v * new
            new_l2 = rest_l2 + w * new * new
            sound = (rest_xl > 0.0) & ((new_l2 if low < 0 else rest_l2) > 0.0)
            better = sound & (other != level) & (new_xl * new_xl * sum_l2 > sum_xl * sum_xl * new_l2)
            store(levels, i * LANES, select(better, other if low < 0 else other & 0xFF, level))
            sum_xl = select(better, new_xl, sum_xl)
            sum_l2 = select(better, new_l2, sum_l2)
            moved = moved | better
        if not pattern(moved):
            break
    return sum_xl, sum_l2


@inlined
def search_signed_levels(x: Any, weights: Any, levels: Any, n: int, top: int) -> Lanes:
    """Find x ~ scale * level, level by level, with levels -top..top-1; they are stored from 0 on. Gives the scale."""
    peak, size = find_peak(x, n)
    inverse = np.float32(-top) / peak
    sum_xl = sum_l2 = splat(0.0)
    for i in range(n):
        v, w = load(x, i * LANES), load(weights, i * LANES)
        level = clamp(nearest(inverse * v), -top, top - 1)
        store(levels, i * LANES, level)
        sum_xl = sum_xl + w * v * to_float(level)
        sum_l2 = sum_l2 + w * to_float(level) * to_float(level)
    sum_xl, sum_l2 = _refine(x, weights, levels, n, -top, top - 1, sum_xl, sum_l2)
    nothing = size < NOTHING
    for i in range(n):
        store(levels, i * LANES, select(nothing, 0, load(levels, i * LANES) + top))
    return select(nothing, 0.0, select(sum_l2 > 0.0, sum_xl / sum_l2, 0.0))


@inlined
def search_unsigned_levels(x: Any, weights: Any, levels: Any, n: int, top: int) -> Lanes:
    """Find x ~ scale * level with levels 0..top for values that should not be negative (scales, minima). Gives the scale."""
    size = splat(0.0)
    for i in range(n):
        v = load(x, i * LANES)
        size = select(size > v, size, v)
    inverse = top / size
    scale = 1.0 / inverse
    best = splat(0.0)
    for i in range(n):
        v = load(x, i * LANES)
        difference = v - scale * to_float(nearest(inverse * v) & 0xFF)
        best = best + load(weights, i * LANES) * difference * difference
    for s in range(-4, 5):
        if s == 0:
            continue
        trial = (np.float32(0.1) * np.float32(s) + np.float32(top)) / size
        scale = 1.0 / trial
        error = splat(0.0)
        for i in range(n):
            v = load(x, i * LANES)
            level = nearest(trial * v)
            difference = v - scale * to_float(select(level > top, top, level))
            error = error + load(weights, i * LANES) * difference * difference
        better = error < best
        best = select(better, error, best)
        inverse = select(better, trial, inverse)
    sum_xl = sum_l2 = splat(0.0)
    for i in range(n):
        v, w = load(x, i * LANES), load(weights, i * LANES)
        level = nearest(inverse * v)
        level = select(level > top, top, level)
        store(levels, i * LANES, level & 0xFF)
        sum_xl = sum_xl + w * v * to_float(level)
        sum_l2 = sum_l2 + w * to_float(level) * to_float(level)
    sum_xl, sum_l2 = _refine(x, weights, levels, n, 0, top, sum_xl, sum_l2)
    nothing = size < NOTHING
    for i in range(n):
        store(levels, i * LANES, select(nothing, 0, load(levels, i * LANES)))
    return select(nothing, 0.0, select(sum_l2 > 0.0, sum_xl / sum_l2, 0.0))
