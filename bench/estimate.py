"""What pairs of measurements show: the median of their values with a 95 % interval, and whether a promise is kept by it.

A promise is kept where the worse end of the interval keeps it, and open where the interval holds the limit between its ends. The interval is a
percentile bootstrap over the pairs. Of fewer than MIN_PAIRS pairs it is their range, which is a 95 % interval of no median; of one pair there is none.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from statistics import median
from typing import Any, Literal

import numpy as np

N_RESAMPLES = 2000
LEVEL = 0.95
MIN_PAIRS = 6  # the range of five holds their median in 94 % of all cases

Sign = Literal["at least", "at most"]
Numbers = Mapping[str, float]  # what one side has measured once
Rounds = Mapping[str, Sequence[Numbers]]  # by side; numbers at the same index are a pair
Number = tuple[str, str]  # a side, and the name of one of its numbers


class Verdict(StrEnum):
    """What an interval says of a promise."""

    NOT_KEPT = "not kept"
    OPEN = "open"
    KEPT = "kept"


@dataclass(frozen=True)
class Estimate:
    """A median, the ends of its interval (None where there is none), and the number of pairs that it is from."""

    value: float
    low: float | None
    high: float | None
    n_pairs: int

    @classmethod
    def of(cls, values: Sequence[float]) -> "Estimate":
        """Estimate the median of at least one value; the same values always give the same interval."""
        n = len(values)
        if n == 1:
            return cls(values[0], None, None, 1)
        if n < MIN_PAIRS:
            return cls(median(values), min(values), max(values), n)
        drawn = np.random.default_rng(0).integers(n, size=(N_RESAMPLES, n))
        medians = np.median(np.asarray(values)[drawn], axis=1)
        tail = (1 - LEVEL) / 2
        low, high = (float(end) for end in np.quantile(medians, (tail, 1 - tail)))
        return cls(median(values), low, high, n)

    @classmethod
    def exact(cls, value: float, n_pairs: int) -> "Estimate":
        """Return a value that does not vary, or that is the worst of all and counts as such."""
        return cls(value, value, value, n_pairs)

    @property
    def ends(self) -> tuple[float, float] | None:
        """Return the interval, or None."""
        return None if self.low is None or self.high is None else (self.low, self.high)

    def verdict(self, sign: Sign, limit: float) -> Verdict:
        """Judge a promise; without an interval the value is judged, which `Finding.words` says."""
        keeps = [end >= limit if sign == "at least" else end <= limit for end in self.ends or (self.value,)]
        return Verdict.KEPT if all(keeps) else Verdict.OPEN if any(keeps) else Verdict.NOT_KEPT


@dataclass(frozen=True)
class Finding:
    """What was measured of one promise; `others` is the largest share of the machine that other programs had meanwhile."""

    what: str
    estimate: Estimate
    sign: Sign
    limit: float
    unit: str = ""
    others: float | None = None

    @property
    def verdict(self) -> Verdict:
        return self.estimate.verdict(self.sign, self.limit)

    @property
    def words(self) -> str:
        """Return the verdict as the page shows it."""
        return self.verdict if self.estimate.ends else f"{self.verdict}, no interval"

    @property
    def line(self) -> str:
        """Return the whole as a line of text."""
        value, ends = self.estimate.value, self.estimate.ends
        interval = f"{ends[0]:.3g} to {ends[1]:.3g}" if ends else "no interval"
        measured = f"{value:.3g}{self.unit} ({interval}, pairs: {self.estimate.n_pairs})"
        return f"{self.what}: {measured}, {self.sign} {self.limit:g}{self.unit}: {self.words}"

    def to_data(self) -> dict[str, str | float | None]:
        """Return it as a part of a result's JSON."""
        estimate = self.estimate
        return {
            "what": self.what,
            "value": estimate.value,
            "low": estimate.low,
            "high": estimate.high,
            "pairs": estimate.n_pairs,
            "sign": self.sign,
            "limit": self.limit,
            "unit": self.unit,
            "others": self.others,
            "verdict": self.words,
        }

    @classmethod
    def from_data(cls, data: Mapping[str, Any], n_rounds: int = 1) -> "Finding":
        """Read what `to_data` wrote, or an older result without interval, of so many rounds."""
        value = data["ratio"] if "ratio" in data else data["value"]
        low, high = data.get("interval", (data.get("low"), data.get("high")))
        estimate = Estimate(value, low, high, data.get("pairs", n_rounds))
        unit = data.get("unit", "x" if "ratio" in data else "")
        return cls(data["what"], estimate, data["sign"], data["limit"], unit, data.get("others"))


@dataclass(frozen=True)
class Promise:
    """One number in terms of another, pair by pair, or a number alone; `models` are the subjects that it is given for (none: all)."""

    what: str
    ours: Number
    theirs: Number | None
    sign: Sign
    limit: float
    models: tuple[str, ...] = ()
    is_difference: bool = False  # not a ratio
    unit: str = ""  # of a difference, or of a number alone

    def values(self, rounds: Rounds) -> list[float]:
        """Return what each pair shows; empty where one of both was not measured."""
        if self.theirs is None:
            return [one for one in _column(rounds, self.ours) if one is not None]
        both = _pairs(rounds, self.ours, self.theirs)
        return [one - other if self.is_difference else one / other for one, other in both]

    def finding(self, rounds: Rounds) -> Finding | None:
        """Return what all pairs show; None where one of both was not measured."""
        if not (values := self.values(rounds)):
            return None
        sides = {side for side, _ in (self.ours, *filter(None, [self.theirs]))}
        others = most_others({side: rounds[side] for side in sides})
        unit = "x" if self.theirs and not self.is_difference else self.unit
        return Finding(self.what, Estimate.of(values), self.sign, self.limit, unit, others)


def findings(promises: Sequence[Promise], rounds: Rounds) -> list[Finding]:
    """Return what was measured of each promise of which anything was."""
    return [found for promise in promises if (found := promise.finding(rounds)) is not None]


def ratio(rounds: Rounds, ours: Number, theirs: Number) -> Estimate:
    """Return one number in terms of another, of which nothing is promised; both must have been measured in a pair."""
    return Estimate.of([one / other for one, other in _pairs(rounds, ours, theirs)])


def most_others(rounds: Rounds) -> float | None:
    """Return the largest share of the machine that other programs had; None where that was not seen."""
    shares = [one["others"] for passes in rounds.values() for one in passes if "others" in one]
    return max(shares, default=None)


def side_medians(rounds: Rounds) -> dict[str, dict[str, float]]:
    """Return the median of every number of each side, over the rounds that have it: what a side does, not how two compare."""
    return {
        side: {
            name: median(numbers[name] for numbers in all_ if name in numbers)
            for name in dict.fromkeys(name for numbers in all_ for name in numbers)
        }
        for side, all_ in rounds.items()
    }


def _pairs(rounds: Rounds, ours: Number, theirs: Number) -> list[tuple[float, float]]:
    both = zip(_column(rounds, ours), _column(rounds, theirs), strict=False)
    return [(one, other) for one, other in both if one is not None and other is not None]


def _column(rounds: Rounds, wanted: Number) -> list[float | None]:
    side, number = wanted
    return [numbers.get(number) for numbers in rounds.get(side, ())]
