"""Choose one type for each tensor so that the loss is least within a budget of bytes.

A multiple-choice knapsack: Lagrangian bisection finds the best choices at one price for a byte, and moves of one and of two tensors fill what
is left. The dual value bounds every other choice from below, so the gap says how far the result may be from the best one.
"""

from dataclasses import dataclass
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

Sizes = NDArray[np.int64]
Losses = NDArray[np.float64]
_N = TypeVar("_N", np.int64, np.float64)
_STEPS = 100  # of the bisection; the price is then exact to the last digits
_MAX_MOVES = 400
_TINY = 1e-12  # of the loss: what a move must gain, so that rounding cannot let moves go round in circles


@dataclass(frozen=True)
class Allocation:
    """The option of each item, their bytes and loss, and the least loss that any choice within the budget can have."""

    options: tuple[int, ...]
    n_bytes: int
    loss: float
    bound: float

    @property
    def gap(self) -> float:
        """Return how far the loss may be above the best one, as a share of it."""
        return max(0.0, self.loss - self.bound) / self.loss if self.loss > 0 else 0.0


def allocate(sizes: Sizes, losses: Losses, budget: int) -> Allocation | None:
    """Return the options of least loss whose bytes are at most `budget`; None where the smallest ones are more.

    `sizes` (bytes, at most 2^62 in sum) and `losses` have a row for each item and a column for each option. An option that an item cannot have
    has an infinite loss. The same arguments give the same choice.
    """
    possible = np.isfinite(losses)
    smallest = np.where(possible, sizes, np.iinfo(np.int64).max).argmin(axis=1)
    if _sum(sizes, smallest) > budget:
        return None
    chosen, bound = _priced(sizes, losses, budget, smallest)
    _improve(chosen, sizes, losses, budget)
    loss = float(_taken(losses, chosen).sum())
    return Allocation(tuple(map(int, chosen)), _sum(sizes, chosen), loss, min(bound, loss))


def fill_in_order(sizes: Sizes, losses: Losses, budget: int, order: NDArray[np.int64]) -> Allocation | None:
    """Return a simple choice to compare with: every item as large as all can be, then items one step larger in an order while they fit.

    `order` are numbers of items. None where the smallest options are more than the budget.
    """
    ladder = np.argsort(np.where(np.isfinite(losses), sizes, np.iinfo(np.int64).max), axis=1, kind="stable")
    n_steps = np.isfinite(losses).sum(axis=1)
    step = np.zeros(len(sizes), np.int64)

    def options(at: NDArray[np.int64]) -> NDArray[np.int64]:
        return np.asarray(ladder[np.arange(len(at)), np.minimum(at, n_steps - 1)])

    if _sum(sizes, options(step)) > budget:
        return None
    while (step + 1 < n_steps).any() and _sum(sizes, options(step + 1)) <= budget:
        step += 1
    for item in order:
        larger = step.copy()
        larger[item] += 1
        if larger[item] < n_steps[item] and _sum(sizes, options(larger)) <= budget:
            step = larger
    chosen = options(step)
    return Allocation(tuple(map(int, chosen)), _sum(sizes, chosen), float(_taken(losses, chosen).sum()), 0.0)


def _taken(values: NDArray[_N], chosen: NDArray[np.int64]) -> NDArray[_N]:
    return np.asarray(values[np.arange(len(chosen)), chosen], values.dtype)


def _sum(sizes: Sizes, chosen: NDArray[np.int64]) -> int:
    return int(_taken(sizes, chosen).sum())


def _priced(
    sizes: Sizes, losses: Losses, budget: int, smallest: NDArray[np.int64]
) -> tuple[NDArray[np.int64], float]:
    """Return the best choice at the lowest price of a byte that keeps to the budget, and the largest dual value."""
    bound = -np.inf

    def at(price: float) -> NDArray[np.int64]:
        nonlocal bound
        costs = losses + price * sizes
        chosen = costs.argmin(axis=1)
        bound = max(bound, float(_taken(costs, chosen).sum()) - price * budget)
        return np.asarray(chosen)

    best = at(0.0)
    if _sum(sizes, best) <= budget:
        return best, bound
    finite = losses[np.isfinite(losses)]
    low, high = 0.0, max(float(finite.max() - finite.min()), np.finfo(float).tiny) * 2.0
    best = smallest
    for _ in range(_STEPS):
        price = (low + high) / 2
        chosen = at(price)
        if _sum(sizes, chosen) <= budget:
            best, high = chosen, price
        else:
            low = price
    return best.copy(), bound


def _improve(chosen: NDArray[np.int64], sizes: Sizes, losses: Losses, budget: int) -> None:
    """Change the options of one item or of two at a time, the largest gain first, until none is left that fits."""
    least = _TINY * float(_taken(losses, chosen).sum())
    for _ in range(_MAX_MOVES):
        slack = budget - _sum(sizes, chosen)
        more = sizes - _taken(sizes, chosen)[:, None]
        gains = _taken(losses, chosen)[:, None] - losses
        moves = _best_moves(more, gains, slack, least)
        if not moves:
            return
        for item, option in moves:
            chosen[item] = option


def _best_moves(more: Sizes, gains: Losses, slack: int, least: float) -> list[tuple[int, int]]:
    """Return the one or two changes (item, option) that gain most together and take at most `slack` bytes; none where nothing gains `least`."""
    n_options = more.shape[1]
    flat_more, flat_gains = more.ravel(), gains.ravel()
    usable = np.flatnonzero(np.isfinite(flat_gains) & ((flat_more != 0) | (flat_gains > least)))
    usable = usable[np.argsort(flat_more[usable], kind="stable")]
    need, gain, item = flat_more[usable], flat_gains[usable], usable // n_options
    first, second = _two_best(gain, item)
    best, found = least, []
    alone = np.where(need <= slack, gain, -np.inf)
    if len(alone) and alone[top := int(alone.argmax())] > best:
        best, found = float(alone[top]), [int(usable[top])]
    # a change together with the best one of another item that fits beside it
    places = np.searchsorted(need, slack - need, side="right") - 1
    inside = places >= 0
    partner = np.where(inside, first[np.maximum(places, 0)], -1)
    same = (partner >= 0) & (item[np.maximum(partner, 0)] == item)
    partner = np.where(same, np.where(inside, second[np.maximum(places, 0)], -1), partner)
    together = np.where(partner >= 0, gain + gain[np.maximum(partner, 0)], -np.inf)
    if len(together) and together[top := int(together.argmax())] > best:
        found = [int(usable[top]), int(usable[partner[top]])]
    return [divmod(one, n_options) for one in found]


def _two_best(
    gain: NDArray[np.float64], item: NDArray[np.int64]
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Return for each place the number of the largest gain up to there, and that of the largest of any other item (-1 for none)."""
    first, second = _largest_so_far(gain), np.full(len(gain), -1)
    for one in np.unique(item[first]):
        mine = item[first] == one
        second[mine] = _largest_so_far(np.where(item == one, -np.inf, gain))[mine]
    return first, second


def _largest_so_far(gain: NDArray[np.float64]) -> NDArray[np.int64]:
    """Return for each place the number of the first of the largest gains up to there; -1 where all are infinitely small."""
    before = np.concatenate([[-np.inf], np.maximum.accumulate(gain)[:-1]]) if len(gain) else gain
    return np.maximum.accumulate(np.where(gain > before, np.arange(len(gain)), -1))


__all__ = ["Allocation", "allocate", "fill_in_order"]
