"""The search of the IQ2 and IQ3 types: the scale of a sub-block, and the groups of the grid (grids.py) that come nearest to its weights.

ggml tries 13 to 31 scales, rounds the weights by each, and takes for each group that is not on the grid the best of its neighbors there.
Here lanes are not sub-blocks but scales: from one scale to the next most groups round to the same levels, so that their neighbors are the same,
and the error of each neighbor is found for LANES scales at once, as sums of a table: what weight i adds at level l.
Each sum is made in ggml's order (quantize_row_iq2_xs_impl and the like in ggml-quants.c), and of equal errors the first one counts.
"""

from typing import Any, NamedTuple

import numpy as np

from quantize.kernels.lanes import (
    load16,
    lowest,
    lowest_bit,
    pattern,
    select,
    store,
    to_float,
)
from quantize.kernels.search import clamp, inlined, nearest

MOST_SCALES = 32
_WIDTH = 16
_load = load16
_LARGEST = np.float32(np.finfo(np.float32).max)
_COUNT = np.arange(16, dtype=np.int32)


def trials(n: int, middle: float, step: float) -> Any:
    """Return what the largest weight of a sub-block may become: `middle` and n steps to either side, the last one again up to whole vectors."""
    ends = np.float32(middle) + np.arange(-n, n + 1, dtype=np.float32) * np.float32(step)
    return np.concatenate([ends, np.repeat(ends[-1:], -len(ends) % 16)])


class SubBlock(NamedTuple):
    """What is known about one sub-block of up to 32 weights, and room to search in."""

    x: Any  # sizes of the weights; negative where a sign was flipped
    weights: Any
    roots: Any  # of the weights
    products: Any  # weights * x
    inverses: Any  # of the scales that are tried
    scales: Any
    sums_xl: Any  # of each scale
    sums_l2: Any
    levels: Any
    codes: Any  # [g * MOST_SCALES + s] is about group g at scale s
    points: Any
    chosen: Any  # the points of the best scale
    table: Any


@inlined
def new_sub_block() -> SubBlock:
    return SubBlock(
        x=np.zeros(32, np.float32),
        weights=np.zeros(32, np.float32),
        roots=np.zeros(32, np.float32),
        products=np.zeros(32, np.float32),
        inverses=np.zeros(MOST_SCALES, np.float32),
        scales=np.zeros(MOST_SCALES, np.float32),
        sums_xl=np.zeros(MOST_SCALES, np.float32),
        sums_l2=np.zeros(MOST_SCALES, np.float32),
        levels=np.zeros(32, np.int32),
        codes=np.zeros(8 * MOST_SCALES, np.int32),
        points=np.zeros(8 * MOST_SCALES, np.int32),
        chosen=np.zeros(8, np.int32),
        table=np.zeros(64 * _WIDTH, np.float32),
    )


@inlined
def _round(x: Any, inverse: Any, top: int) -> Any:
    return clamp(nearest(0.5 * (x * inverse - 1.0)), 0, top)


@inlined
def _try_scales(b: SubBlock, grid: Any, n: int, size: int, top: int, n_scales: int) -> None:
    """Round the sub-block by each scale, and leave the sums of weight * x * level and weight * level**2 for each."""
    for at in range(0, n_scales, _WIDTH):
        inverse = _load(b.inverses, at)
        sum_xl = sum_l2 = to_float(nearest(inverse) & 0)
        for g in range(n // size):
            _tabulate(b, at, g * size, size, top)
            _find_points(b, grid, g * MOST_SCALES + at, size, top)
            points = _load(b.points, g * MOST_SCALES + at)
            for i in range(size):
                level = to_float(points >> _field(top) * i & _odd_mask(top))
                sum_xl = sum_xl + b.products[g * size + i] * level
                sum_l2 = sum_l2 + b.weights[g * size + i] * level * level
        store(b.sums_xl, at, sum_xl)
        store(b.sums_l2, at, sum_l2)


@inlined
def _field(top: int) -> int:
    return 3 if top == 2 else 4


@inlined
def _tabulate(b: SubBlock, at: int, first: int, size: int, top: int) -> None:
    """Fill the table for the group that begins with weight `first`, and keep its codes."""
    inverse, scale = _load(b.inverses, at), _load(b.scales, at)
    codes = nearest(inverse) & 0
    for k in range(size):
        i = size - 1 - k
        codes = codes * (top + 1) + _round(b.x[first + i], inverse, top)
        for level in range(top + 1):
            difference = scale * np.float32(2 * level + 1) - b.x[first + i]
            store(b.table, (i * (top + 1) + level) * _WIDTH, b.roots[first + i] * difference * difference)
    store(b.codes, first // size * MOST_SCALES + at, codes)


@inlined
def _find_points(b: SubBlock, grid: Any, at: int, size: int, top: int) -> None:
    """For each of the codes from `at` on, all of one group, find the point of the grid with the least error."""
    codes = _load(b.codes, at)
    found = codes
    left = (1 << _WIDTH) - 1
    while left:
        code = b.codes[at + lowest_bit(left)]
        same = codes == code
        left &= ~pattern(same)
        first, end = grid.starts[code], grid.starts[code + 1]
        chosen = (codes & 0) + grid.points[first]
        if end - first > 1:
            best = _error(b, grid.points[first], size, top)
            for j in range(first + 1, end):
                error = _error(b, grid.points[j], size, top)
                better = error < best
                best = select(better, error, best)
                chosen = select(better, grid.points[j], chosen)
        found = select(same, chosen, found)
    store(b.points, at, found)


@inlined
def _error(b: SubBlock, point: int, size: int, top: int) -> Any:
    total = _load(b.table, (point >> 1 & _level_mask(top)) * _WIDTH)
    for i in range(1, size):
        total = total + _load(
            b.table, (i * (top + 1) + (point >> (_field(top) * i + 1) & _level_mask(top))) * _WIDTH
        )
    return total


@inlined
def _level_mask(top: int) -> int:
    return 3 if top == 2 else 7


@inlined
def _odd_mask(top: int) -> int:
    return 7 if top == 2 else 15


@inlined
def _best_scale(b: SubBlock, n_scales: int, scale: Any) -> tuple[Any, int]:
    """Return the scale of the best try, improved by least squares, and which one that was; `scale` and -1 where none is any good."""
    best, winner = np.float32(0), -1
    for s in range(n_scales):
        xl, l2 = b.sums_xl[s], b.sums_l2[s]
        if l2 > 0 and xl * xl > best * l2:
            scale = xl / l2
            best = scale * xl
            winner = s
    return scale, winner


@inlined
def _round_again(b: SubBlock, grid: Any, n: int, size: int, top: int, scale: float, every: bool) -> Any:
    """Choose points by the scale that was found, for all groups or those that are not on the grid; returns the scale that fits them."""
    inverse = np.float32(1) / scale
    for i in range(0, n, 16):
        store(b.levels, i, _round(load16(b.x, i), inverse, top))
    for g in range(n // size):
        if every or b.codes[g * MOST_SCALES] < 0:
            code = 0
            for k in range(size):
                code = code * (top + 1) + b.levels[g * size + size - 1 - k]
            b.chosen[g] = _nearest_point(b, grid, code, g * size, size, top, scale)
    sum_xl = sum_l2 = np.float32(0)
    for g in range(n // size):
        for i in range(size):
            level = np.float32(b.chosen[g] >> _field(top) * i & _odd_mask(top))
            sum_xl += b.products[g * size + i] * level
            sum_l2 += b.weights[g * size + i] * level * level
    return sum_xl / sum_l2 if sum_l2 > 0 else scale


@inlined
def _nearest_point(b: SubBlock, grid: Any, code: int, at: int, size: int, top: int, scale: float) -> Any:
    """Return the point for a group of this code that has the least error at one scale; here lanes are points."""
    first, end = grid.starts[code], grid.starts[code + 1]
    found = grid.points[first]
    if end - first == 1:
        return found
    best = _LARGEST
    for j in range(first, end, 16):
        points = load16(grid.points, j)
        total = to_float(points & 0)
        for i in range(size):
            difference = to_float(points >> _field(top) * i & _odd_mask(top)) * scale - b.x[at + i]
            total = total + b.roots[at + i] * difference * difference
        total = select(load16(_COUNT, 0) < end - j, total, np.inf)
        least = lowest(total)
        if least < best:
            best = least
            found = grid.points[j + lowest_bit(pattern(total == least))]
    return found


@inlined
def search(
    b: SubBlock, grid: Any, n: int, size: int, top: int, n_scales: int, start: float, rule: int
) -> Any:
    """Return the scale of the sub-block, and leave its points in `chosen`; below 0 where all signs are to be turned.

    The scales to try are in `scales`; `start` is what remains where none is any good. `rule` 0: only groups off the grid are chosen again by the
    scale that was found; 1: all groups if there is one off the grid; 2: all.
    """
    _try_scales(b, grid, n, size, top, n_scales)
    scale, winner = _best_scale(b, n_scales, start)
    off_grid = False
    for g in range(n // size):
        b.chosen[g] = _ones(size, top) if winner < 0 else b.points[g * MOST_SCALES + winner]
        on_grid = rule == 0 if winner < 0 else grid.numbers[b.codes[g * MOST_SCALES + winner]] >= 0
        b.codes[g * MOST_SCALES] = 0 if on_grid else -1
        off_grid = off_grid or not on_grid
    if scale > 0 and (off_grid or rule == 2):
        return _round_again(b, grid, n, size, top, scale, rule > 0)
    return scale


@inlined
def _ones(size: int, top: int) -> int:
    """Return the point with all levels 0."""
    point = 0
    for _ in range(size):
        point = point << _field(top) | 1
    return point


@inlined
def number(grid: Any, point: int, size: int, top: int) -> Any:
    """Return the number under which a point of the grid is stored."""
    code = 0
    for k in range(size):
        code = code * (top + 1) + (point >> (_field(top) * (size - 1 - k) + 1) & _level_mask(top))
    return grid.numbers[code]
