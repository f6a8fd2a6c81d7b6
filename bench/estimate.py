"""What pairs of measurements show: the median of their values with a 95 % interval, and whether a promise is kept by it.

A promise is kept where the worse end of the interval keeps it, and open where the interval holds the limit between its ends. The interval is a
percentile bootstrap over the pairs. Of fewer than MIN_PAIRS pairs it is their range, which is a 95 % interval of no median; of one pair there is none.

A pair during which other programs had more than QUIET of the machine is left out. Where that would leave out more than half of the pairs, all of them
count, the estimate is called disturbed, and its promise is open.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from enum import StrEnum
from math import isnan
from statistics import median
from typing import Any, Literal

import numpy as np

N_RESAMPLES = 2000
LEVEL = 0.95
MIN_PAIRS = 6  # the range of five holds their median in 94 % of all cases
QUIET = 0.1  # of the machine for other programs, at most
MAX_DECIMALS = 17  # of a number beside its limit

Sign = Literal["at least", "at most"]
Numbers = Mapping[str, float]  # what one side has measured once
Rounds = Mapping[str, Sequence[Numbers]]  # by side; numbers at the same index are a pair
Number = tuple[str, str]  # a side, and the name of one of its numbers


class Verdict(StrEnum):
    """What an interval says of a promise."""

    NOT_KEPT = "not kept"
    OPEN = "open"
    NOT_MEASURED = "not measured"
    KEPT = "kept"


@dataclass(frozen=True)
class Pair:
    """What one pair shows, and the largest share of the machine that others had meanwhile (None where that was not seen)."""

    value: float
    others: float | None

    @property
    def is_quiet(self) -> bool:
        """Whether no other program disturbed it, as far as that was seen."""
        return self.others is None or self.others <= QUIET


@dataclass(frozen=True)
class Estimate:
    """A median, the ends of its interval or range (None where there is none), and the number of pairs that it is from.

    `is_disturbed`: other programs ran during most pairs, so that nothing follows from it.
    """

    value: float
    low: float | None
    high: float | None
    n_pairs: int
    is_disturbed: bool = False

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
        """Return the interval or range, or None."""
        return None if self.low is None or self.high is None else (self.low, self.high)

    @property
    def is_exact(self) -> bool:
        """Whether the value does not vary."""
        return self.low is not None and self.low == self.high

    @property
    def is_interval(self) -> bool:
        """Whether the ends are those of a 95 % interval, and not the range of a few pairs."""
        return self.ends is not None and self.n_pairs >= MIN_PAIRS

    def verdict(self, sign: Sign, limit: float) -> Verdict:
        """Judge a promise; without an interval the value is judged, which `Finding.words` says."""
        if isnan(self.value):
            return Verdict.NOT_MEASURED
        if self.is_disturbed:
            return Verdict.OPEN
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
        if self.estimate.is_disturbed:
            return f"{self.verdict}, disturbed"
        if self.estimate.ends or self.verdict == Verdict.NOT_MEASURED:
            return self.verdict
        return f"{self.verdict}, no interval"

    @property
    def interval(self) -> str:
        """Return the interval in words; a range is called one."""
        ends = self.estimate.ends
        if ends is None:
            return "no interval"
        if self.estimate.is_exact:
            return "exact"
        words = f"{self.number(ends[0])} to {self.number(ends[1])}"
        return words if self.estimate.is_interval else f"{words}, range"

    @property
    def line(self) -> str:
        """Return the whole as a line of text."""
        measured = (
            f"{self.number(self.estimate.value)}{self.unit} ({self.interval}, pairs: {self.estimate.n_pairs})"
        )
        return f"{self.what}: {measured}, {self.sign} {self.limit:g}{self.unit}: {self.words}"

    def number(self, value: float) -> str:
        """Write a number in the digits that show on which side of the limit it is: whole from 100 on, else two decimals, more where it is small or near."""
        if isnan(value):
            return "nothing"
        is_whole = value == int(value) and self.unit != "x"
        decimals = 3 if abs(value) < 0.01 else 2
        if is_whole or max(abs(value), abs(self.limit)) >= 100:
            decimals = 0
        while decimals < MAX_DECIMALS and _side(round(value, decimals), self.limit) != _side(
            value, self.limit
        ):
            decimals += 1
        return f"{value:,.{decimals}f}"

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
            "disturbed": estimate.is_disturbed,
            "verdict": self.words,
        }

    @classmethod
    def from_data(cls, data: Mapping[str, Any], n_rounds: int = 1) -> "Finding":
        """Read what `to_data` wrote, or an older result without interval, of so many rounds."""
        value = data["ratio"] if "ratio" in data else data["value"]
        low, high = data.get("interval", (data.get("low"), data.get("high")))
        others = data.get("others")
        is_disturbed = data.get("disturbed", others is not None and others > QUIET)
        estimate = Estimate(value, low, high, data.get("pairs", n_rounds), is_disturbed)
        unit = data.get("unit", "x" if "ratio" in data else "")
        return cls(data["what"], estimate, data["sign"], data["limit"], unit, others)


@dataclass(frozen=True)
class Promise:
    """One number in terms of another, pair by pair, or a number alone; `models` are the subjects that it is given for (none: all).

    `needs_quiet` is False for what must hold beside other programs too, such as that no response is lost: then every pair counts.
    """

    what: str
    ours: Number
    theirs: Number | None
    sign: Sign
    limit: float
    models: tuple[str, ...] = ()
    is_difference: bool = False  # not a ratio
    unit: str = ""  # of a difference, or of a number alone
    needs_quiet: bool = True

    def pairs(self, rounds: Rounds) -> list[Pair]:
        """Return what each pair shows; empty where one of both was not measured."""
        return _pairs(rounds, self.ours, self.theirs, is_difference=self.is_difference)

    def finding(self, rounds: Rounds) -> Finding | None:
        """Return what the pairs show that count; None where one of both sides was not measured."""
        if not (pairs := self.pairs(rounds)):
            return None
        counted, is_disturbed = _counted(pairs) if self.needs_quiet else (pairs, False)
        estimate = replace(Estimate.of([one.value for one in counted]), is_disturbed=is_disturbed)
        unit = "x" if self.theirs and not self.is_difference else self.unit
        return Finding(self.what, estimate, self.sign, self.limit, unit, _most(one.others for one in counted))


def findings(promises: Sequence[Promise], rounds: Rounds) -> list[Finding]:
    """Return what was measured of each promise of which anything was."""
    return [found for promise in promises if (found := promise.finding(rounds)) is not None]


def ratio(rounds: Rounds, ours: Number, theirs: Number) -> Estimate:
    """Return one number in terms of another, of which nothing is promised; both must have been measured in a pair."""
    counted, is_disturbed = _counted(_pairs(rounds, ours, theirs))
    return replace(Estimate.of([one.value for one in counted]), is_disturbed=is_disturbed)


def most_others(rounds: Rounds) -> float | None:
    """Return the largest share of the machine that other programs had; None where that was not seen."""
    return _most(one.get("others") for passes in rounds.values() for one in passes)


def side_medians(rounds: Rounds) -> dict[str, dict[str, float]]:
    """Return the median of every number of each side, over the rounds that have it: what a side does, not how two compare.

    Rounds that other programs disturbed are left out as pairs are.
    """
    medians: dict[str, dict[str, float]] = {}
    for side, all_ in rounds.items():
        medians[side] = {}
        for name in dict.fromkeys(name for numbers in all_ for name in numbers):
            found = [Pair(numbers[name], numbers.get("others")) for numbers in all_ if name in numbers]
            medians[side][name] = median(one.value for one in _counted(found)[0])
    return medians


def _counted(pairs: Sequence[Pair]) -> tuple[Sequence[Pair], bool]:
    """Return the quiet pairs, or all where fewer than half of them are quiet, and whether that is so."""
    quiet = [one for one in pairs if one.is_quiet]
    return (quiet, False) if 2 * len(quiet) >= len(pairs) else (pairs, True)


def _pairs(rounds: Rounds, ours: Number, theirs: Number | None, *, is_difference: bool = False) -> list[Pair]:
    """Return the value of each pair in which all numbers were measured: a ratio, a difference, or our number alone."""
    found = []
    for index, mine in enumerate(rounds.get(ours[0], ())):
        passes = [mine]
        if theirs is not None:
            passes += rounds.get(theirs[0], ())[index : index + 1]
        names = [number for _, number in (ours, *filter(None, [theirs]))]
        if len(passes) == len(names) and all(name in one for one, name in zip(passes, names, strict=True)):
            value, *other = (one[name] for one, name in zip(passes, names, strict=True))
            if other:
                value = value - other[0] if is_difference else value / other[0]
            found.append(Pair(value, _most(one.get("others") for one in passes)))
    return found


def _most(shares: Iterable[float | None]) -> float | None:
    """Return the largest of the shares that were seen."""
    return max((share for share in shares if share is not None), default=None)


def _side(value: float, limit: float) -> int:
    """Return -1, 0 or 1 for a number below its limit, at it, or above it."""
    return (value > limit) - (value < limit)
