"""What a comparison is made of: sides that take turns, numbers that each gives, and what was promised of them."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from statistics import median

from bench.engine.subject import Setting
from bench.process import watch

Numbers = Mapping[str, float]
Rounds = Mapping[str, Sequence[Numbers]]  # by side


@dataclass(frozen=True)
class Side:
    """One way to do the work. `run` starts all that it needs, warms it up, does the work, ends everything, and gives its numbers."""

    name: str
    run: Callable[[], Numbers]


@dataclass(frozen=True)
class Promise:
    """One number in terms of another, round by round; `models` are the subjects that it is given for (none: all)."""

    what: str
    ours: tuple[str, str]  # side, number
    theirs: tuple[str, str]
    sign: str  # "at least" or "at most"
    limit: float
    models: tuple[str, ...] = ()

    def ratio(self, rounds: Rounds) -> float | None:
        """Return the median over the rounds of ours / theirs; None where one of them was not measured."""
        (our_side, our_number), (their_side, their_number) = self.ours, self.theirs
        pairs = zip(rounds.get(our_side, ()), rounds.get(their_side, ()), strict=False)
        ratios = [
            ours[our_number] / theirs[their_number]
            for ours, theirs in pairs
            if our_number in ours and theirs.get(their_number)
        ]
        return median(ratios) if ratios else None

    def is_kept(self, ratio: float) -> bool:
        return ratio >= self.limit if self.sign == "at least" else ratio <= self.limit


@dataclass(frozen=True)
class Scenario:
    """One comparison; `sides` makes its sides for a model and may look for the best of several settings of a peer first."""

    name: str
    title: str
    sides: Callable[[Setting], Sequence[Side]]
    promises: tuple[Promise, ...]
    models: tuple[str, ...] = ("demo", "true-shape")

    def promised(self, model: str) -> tuple[Promise, ...]:
        return tuple(promise for promise in self.promises if not promise.models or model in promise.models)


def take_turns(sides: Sequence[Side], n_rounds: int) -> Iterator[dict[str, list[Numbers]]]:
    """Run all sides once a round, another one first each time; give everything so far after every round."""
    rounds: dict[str, list[Numbers]] = {side.name: [] for side in sides}
    for number in range(n_rounds):
        first = number % len(sides)
        for side in islice([*sides, *sides], first, first + len(sides)):
            with watch() as share:
                numbers = dict(side.run())
            rounds[side.name].append({**numbers, "others": share.others})
            shown = ", ".join(f"{name} {value:,.2f}" for name, value in numbers.items())
            print(f"    {side.name:24} {shown}; others had {share.others:.0%} of the machine", flush=True)
        yield rounds


def best(sides: Sequence[Side], number: str) -> Side:
    """Run every setting once and give the side with the highest number: a peer is measured at its best."""
    found = []
    for side in sides:
        value = side.run()[number]
        print(f"    looking for the best: {side.name:40} {number} {value:,.2f}", flush=True)
        found.append((value, side))
    return max(found, key=lambda pair: pair[0])[1]


def medians(rounds: Sequence[Numbers]) -> dict[str, float]:
    """Return the median of every number over the rounds that have it."""
    names = dict.fromkeys(name for numbers in rounds for name in numbers)
    return {name: median(numbers[name] for numbers in rounds if name in numbers) for name in names}
