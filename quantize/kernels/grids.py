"""The grids of the IQ2 and IQ3 types: the few groups of levels that can be stored, and those that are tried for each that cannot.

These types store four or eight levels at once, as a number into a list of groups (the grid). A group of rounded levels that is not
in the list is replaced by one of its neighbors there. Levels stand for odd numbers: 1, 3, 5 for three of them, 1 to 15 for eight.
"""

from functools import cache
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

# For how many of the smallest distances ggml tries all groups of the grid (iq2xs_init_impl and iq3xs_init_impl in ggml-quants.c).
_DISTANCES = {"IQ2_XXS": 2, "IQ2_XS": 2, "IQ2_S": 1, "IQ3_XXS": 2, "IQ3_S": 3}
PADDING = 16  # points after the last one, so that so many can be loaded at once

Int32s = NDArray[np.int32]


class Grid(NamedTuple):
    """A grid as the kernels take it; the code of a group has its first level as the lowest digit, to the base of the number of levels.

    `points[starts[code] : starts[code + 1]]` are the groups that may stand for this one, in ggml's order, packed by `field` bits for each odd
    number: the group itself where it is on the grid. `numbers[code]` is the number under which it is stored, or -1.
    """

    starts: Int32s
    points: Int32s
    numbers: Int32s


@cache
def grid(type_name: str) -> Grid:
    """Return the grid of a type ("IQ3_S"), as the gguf package has it."""
    import gguf.quants  # half a second

    table = getattr(gguf.quants, type_name)
    table.init_grid()
    values, levels = np.unique(table.grid.reshape(table.grid_shape), return_inverse=True)
    levels = levels.reshape(table.grid_shape)
    return _with_neighbors(levels, len(values), _DISTANCES[type_name])


def _with_neighbors(levels: NDArray[np.intp], base: int, n_distances: int) -> Grid:
    """Return the grid of groups `levels` (n_points, size), each below `base`."""
    size = levels.shape[1]
    places = base ** np.arange(size)
    every = np.arange(base**size)[:, None] // places % base
    numbers = np.full(base**size, -1, np.int32)
    numbers[levels @ places] = np.arange(len(levels))
    found, of_grid = (
        every.astype(np.float32),
        levels.astype(np.float32),
    )  # small whole numbers: the products are exact
    distances = (found**2).sum(axis=1)[:, None] + (of_grid**2).sum(axis=1) - 2 * found @ of_grid.T
    limit = distances.min(axis=1)
    for _ in range(n_distances - 1):
        further = np.where(distances > limit[:, None], distances, np.inf).min(axis=1)
        limit = np.where(numbers >= 0, 0, further)
    codes, points = np.nonzero(distances <= limit[:, None])
    order = np.lexsort((points, distances[codes, points], codes))
    packed = ((2 * levels + 1) << (field(base) * np.arange(size))).sum(axis=1).astype(np.int32)
    starts = np.zeros(base**size + 1, np.int32)
    np.cumsum(np.bincount(codes, minlength=base**size), out=starts[1:])
    return Grid(starts, np.concatenate([packed[points[order]], np.zeros(PADDING, np.int32)]), numbers)


def field(base: int) -> int:
    """Return the bits of the largest odd number that one of `base` levels stands for."""
    return (2 * base - 1).bit_length()


__all__ = ["PADDING", "Grid", "grid"]
