"""Sides that take turns, so that all of them meet the same machine.

Each pass runs every side once, and every other pass in the reverse order: A B B A, with three sides A B C C B A. What the machine does over minutes
is then in both numbers of a pair. A pass that other programs disturbed is measured again.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from bench.estimate import QUIET, Numbers
from bench.process import watch

N_PAIRS, N_LONG_PAIRS = 10, 4  # of short pieces, and of those that take minutes
MAX_TRIES = 2  # of a pass on a machine that is not quiet; the less disturbed one counts


@dataclass(frozen=True)
class Side:
    """One way to do the work. `run` starts all that is not there yet, warms it up, does the work, ends what it started, and gives its numbers."""

    name: str
    run: Callable[[], Numbers]


def take_turns(
    sides: Sequence[Side], n_pairs: int, *, show: bool = True
) -> Iterator[dict[str, list[Numbers]]]:
    """Run `n_pairs` passes; after each yield the numbers of all so far, by side, with the share of the machine that others had."""
    rounds: dict[str, list[Numbers]] = {side.name: [] for side in sides}
    for number in range(n_pairs):
        order = sides if number % 2 == 0 else sides[::-1]
        for side, numbers in _quietest(order, show).items():
            rounds[side].append(numbers)
        yield rounds


def all_turns(sides: Sequence[Side], n_pairs: int, *, show: bool = True) -> dict[str, list[Numbers]]:
    """Run `n_pairs` passes, at least one, and return all numbers by side."""
    *_, rounds = take_turns(sides, n_pairs, show=show)
    return rounds


def _quietest(order: Sequence[Side], show: bool) -> dict[str, Numbers]:
    """Run a pass until nothing disturbs it, MAX_TRIES times at most; return the numbers of the least disturbed try."""
    tries = list[tuple[float, dict[str, Numbers]]]()
    for _ in range(MAX_TRIES):
        found = {side.name: _measured(side, show) for side in order}
        others = max(numbers["others"] for numbers in found.values())
        tries.append((others, found))
        if others <= QUIET:
            break
        if show:
            print(f"    disturbed: others had {others:.0%} of the machine", flush=True)
    return min(tries, key=lambda one: one[0])[1]


def _measured(side: Side, show: bool) -> Numbers:
    with watch() as share:
        numbers = dict(side.run())
    if show:
        shown = ", ".join(f"{name} {value:,.2f}" for name, value in numbers.items())
        print(f"    {side.name:24} {shown}; others had {share.others:.0%} of the machine", flush=True)
    return {**numbers, "others": share.others}


def best(sides: Sequence[Side], number: str) -> Side:
    """Run every setting once and return the side with the highest number: a peer is measured at its best."""
    found = []
    for side in sides:
        value = side.run()[number]
        print(f"    looking for the best: {side.name:40} {number} {value:,.2f}", flush=True)
        found.append((value, side))
    return max(found, key=lambda pair: pair[0])[1]
