"""A measured run: its tests and samples, how two runs compare, and the files in which runs are kept."""

import json
import re
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime
from math import exp, log, sqrt
from pathlib import Path
from statistics import mean, median, stdev, variance
from typing import Any, Literal

from mixcli.errors import IntegrityError, UsageError
from mixcli.system import paths
from mixcli.system.json_cache import is_number, replace_text
from mixcli.system.regular_file import read_regular
from mixcli.system.text import shown

BenchKind = Literal["prefill", "decode"]
# Student's t, 97.5 %, by degrees of freedom
T_QUANTILES = (12.706, 4.303, 3.182, 2.776, 2.571, 2.447, 2.365, 2.306, 2.262, 2.228, 2.201, 2.179, 2.160, 2.145, 2.131, 2.120, 2.110, 2.101, 2.093, 2.086)  # fmt: skip
T_MANY = 1.98  # with more; 2.080 falls to 1.960
LAST = "last"
MAX_BYTES = 1 << 24  # of a file that is read
MIN_RATE = 1e-9  # of what was measured, per second


@dataclass(frozen=True)
class BenchTest:
    """What is measured: `n_tokens` of prefill, or of decode of `n_batch` texts together, after `depth` tokens in the cache."""

    kind: BenchKind
    n_tokens: int
    depth: int = 0
    n_batch: int = 1

    @property
    def n_text(self) -> int:
        """Return the tokens of each text in the end."""
        return self.depth + self.n_tokens

    @property
    def n_cells(self) -> int:
        """Return the cells of the KV cache that all texts fill."""
        return self.n_batch * self.n_text

    @property
    def words(self) -> str:
        """Return its name: "decode 128 at depth 4096, 8 texts"."""
        depth = f" at depth {self.depth}" if self.depth else ""
        return f"{self.kind} {self.n_tokens}{depth}" + (f", {self.n_batch} texts" if self.n_batch > 1 else "")


@dataclass(frozen=True)
class BenchSample:
    """One repetition: tok/s, and how many cores other programs used meanwhile (None where the system does not tell)."""

    rate: float
    others: float | None = None


@dataclass(frozen=True)
class BenchResult:
    """The samples of a test, and the bound of its devices in tok/s (None where it is not known)."""

    test: BenchTest
    samples: tuple[BenchSample, ...]
    roof: float | None = None

    @property
    def rates(self) -> list[float]:
        return [sample.rate for sample in self.samples]

    @property
    def median(self) -> float:
        return median(self.rates)

    @property
    def share(self) -> float | None:
        """Return the share of the roof that was reached."""
        return self.median / self.roof if self.roof else None


@dataclass(frozen=True)
class BenchRun:
    """A run: when, which file (name and bytes), with which placement (its JSON text), on what, and the results so far.

    `bandwidths` are the measured GB/s of each device that the plan uses.
    """

    at: str
    model: str
    n_bytes: int
    placement: str
    machine: str
    bandwidths: dict[str, float]
    results: tuple[BenchResult, ...] = ()

    @property
    def others(self) -> float | None:
        """Return how many cores other programs used, in the median of all samples."""
        found = [one.others for result in self.results for one in result.samples if one.others is not None]
        return median(found) if found else None

    def to_data(self) -> dict[str, object]:
        """Return it as it is kept and printed: with medians, standard deviations and shares beside the samples."""
        results = [
            {
                **asdict(one),
                "median": one.median,
                "mean": mean(one.rates),
                "stddev": stdev(one.rates) if len(one.rates) > 1 else None,
                "share_of_roof": one.share,
            }
            for one in self.results
        ]
        return {**vars(self), "results": results, "others": self.others}

    @classmethod
    def from_data(cls, data: Any) -> "BenchRun":
        """Read what `to_data` returned, of the samples their rates; AttributeError, KeyError, TypeError or ValueError for something else."""
        results = tuple(
            BenchResult(
                _test_of(one["test"]),
                tuple(BenchSample(_rate_of(each["rate"])) for each in one["samples"]),
                None if one["roof"] is None else _rate_of(one["roof"]),
            )
            for one in data["results"]
        )
        if not all(one.samples for one in results):
            raise ValueError("a test without samples")
        at, model, placement, machine = (str(data[name]) for name in ("at", "model", "placement", "machine"))
        bandwidths = {str(name): _rate_of(rate) for name, rate in data["bandwidths"].items()}
        return cls(at, model, int(data["n_bytes"]), placement, machine, bandwidths, results)

    def with_sample(self, test: BenchTest, sample: BenchSample, roof: float | None) -> "BenchRun":
        """Return the run with one more sample."""
        *before, last = self.results or (None,)
        if last is not None and last.test == test:
            grown = replace(last, samples=(*last.samples, sample))
            return replace(self, results=(*(one for one in before if one), grown))
        return replace(self, results=(*self.results, BenchResult(test, (sample,), roof)))


def _test_of(data: Any) -> BenchTest:
    if data["kind"] not in ("prefill", "decode"):
        raise ValueError("an unknown kind of test")
    return BenchTest(data["kind"], *(int(data[name]) for name in ("n_tokens", "depth", "n_batch")))


def _rate_of(value: Any) -> float:
    if not is_number(value, above=MIN_RATE):
        raise ValueError("a rate that is not a positive number")
    return float(value)


@dataclass(frozen=True)
class Ratio:
    """How many times as fast as an earlier run, with the ends of the 95 % interval (None with a single sample in either)."""

    value: float
    low: float | None
    high: float | None


def ratio_of(now: Sequence[float], before: Sequence[float]) -> Ratio:
    """Return the ratio of the geometric means of two runs' rates, with Welch's interval of the difference of their logarithms."""
    new, old = [log(rate) for rate in now], [log(rate) for rate in before]
    difference = mean(new) - mean(old)
    if min(len(new), len(old)) < 2:
        return Ratio(exp(difference), None, None)
    parts = [variance(one) / len(one) for one in (new, old)]
    error, smallest = sqrt(sum(parts)), min(len(new), len(old)) - 1
    # Welch-Satterthwaite
    below = sum(part**2 / (len(one) - 1) for part, one in zip(parts, (new, old), strict=True))
    freedom = sum(parts) ** 2 / below if below > 0 else smallest
    half = error * t_quantile(freedom)
    return Ratio(exp(difference), exp(difference - half), exp(difference + half))


def t_quantile(freedom: float) -> float:
    """Return Student's t of 97.5 % for degrees of freedom, rounded down to whole ones."""
    whole = max(1, int(freedom))
    return T_QUANTILES[whole - 1] if whole <= len(T_QUANTILES) else T_MANY + 0.1 * len(T_QUANTILES) / whole


def folder() -> Path:
    """Return the folder of kept runs."""
    return paths.private(paths.data_dir() / "bench")


def now() -> str:
    """Return the time as runs have it: UTC, to the second."""
    return datetime.now(UTC).strftime("%Y-%m-%dT%H-%M-%SZ")


def save(run: BenchRun) -> Path:
    """Keep a run and return its file; OSError where it cannot be written."""
    name = re.sub(r"[^\w.-]+", "-", Path(run.model).name)
    path = folder() / f"{run.at}-{name}.json"
    replace_text(path, json.dumps(run.to_data(), indent=1))
    return path


def earlier(name: str, model: str) -> BenchRun:
    """Return the run that a name means: "last" of the same model, a file, or how the name of a kept run begins.

    Raises UsageError where there is none, IntegrityError for a file that is something else.
    """
    if name == LAST:
        found = [run for path in _newest_first() if (run := _read_kept(path)) and run.model == model]
        if not found:
            raise UsageError(f"no earlier run of {model}; run mixcli bench without --against first")
        return found[0]
    path = Path(name)
    if path.is_file():
        return read(path)
    kept = [one for one in _newest_first() if one.name.startswith(name)] if name else []
    if len(kept) != 1:
        what = f"{len(kept)} saved runs begin with" if kept else "saved run not found:"
        raise UsageError(
            f"{what} {shown(path)}; pass {LAST}, a file, or the beginning of a name in {folder()}"
        )
    return read(kept[0])


def read(path: Path) -> BenchRun:
    """Read a run; IntegrityError for a file that is not one."""
    try:
        return BenchRun.from_data(json.loads(read_regular(path, MAX_BYTES)))
    except (AttributeError, ValueError, KeyError, TypeError, ArithmeticError, RecursionError):
        raise IntegrityError(f"{shown(path)} is not a run of mixcli bench; choose another file") from None


def _newest_first() -> list[Path]:
    return sorted(folder().glob("*.json"), reverse=True)


def _read_kept(path: Path) -> BenchRun | None:
    try:
        return read(path)
    except (IntegrityError, OSError):
        return None
