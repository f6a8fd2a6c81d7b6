"""Fit a temperature to answers whose right value is known, and keep it for later runs.

One number for each question or field, by maximum likelihood: of listed values p^(1/T) normalized, and the likelihood is that of the right
value (Guo et al. 2017, On Calibration of Modern Neural Networks, section 4.2); of a product of token probabilities p^(1/T), and the
likelihood is that of the answer being right. Its effect is measured on records that it was not fitted to: in FOLDS parts, each with the temperature of the others. The one that is saved is fitted to all of them.
"""

import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from math import exp, log, log1p
from pathlib import Path

from mixcli.errors import UsageError
from mixcli.host.protocol.messages import object_of
from mixcli.request.probability import Probability
from mixcli.system.formatting import counted
from mixcli.system.json_cache import MAX_BYTES, is_number, replace_text
from mixcli.system.regular_file import read_regular

FOLDS = 5
MIN_EXAMPLES = 20  # with fewer, a temperature would be noise
MAX_EXAMPLES = 10_000  # of a question or field; later ones do not count
MIN_LOG, MAX_LOG = log(0.05), log(20.0)  # of a temperature that is fitted
LEAST, MOST = 0.01, 100.0  # of one that is read: powers of 1/T stay within a float
FLOOR = -60.0  # of a log-probability
N_BINS = 10
_GOLDEN = (5**0.5 - 1) / 2


@dataclass(frozen=True)
class Example:
    """An answer whose right value is known: log-probabilities of all values and the place of the right one, or, of a product, whether it was right."""

    logs: tuple[float, ...]
    right: int
    written: int

    @classmethod
    def of(cls, found: Probability, answer: str, gold: str) -> "Example | None":
        """Return the example; None where the field could not have the right value."""
        if not found.is_exact:
            return cls((_log(found.value),), int(answer == gold), 0)
        names = list(found.values)
        if gold not in names:
            return None
        written = (
            names.index(answer) if answer in names else names.index(max(names, key=found.values.__getitem__))
        )
        return cls(tuple(_log(one) for one in found.values.values()), names.index(gold), written)

    @property
    def is_right(self) -> bool:
        return bool(self.right) if len(self.logs) == 1 else self.right == self.written

    def confidence(self, temperature: float) -> float:
        """Return the probability of the answer as it was written."""
        return exp(self.logs[self.written] / temperature - self._norm(temperature))

    def loss(self, temperature: float) -> float:
        """Return the negative log-likelihood of what is right, in nats."""
        if len(self.logs) > 1:
            return self._norm(temperature) - self.logs[self.right] / temperature
        log_p = min(self.logs[0] / temperature, -1e-9)
        return -log_p if self.right else -log1p(-exp(log_p))

    def _norm(self, temperature: float) -> float:
        if len(self.logs) == 1:
            return 0.0
        most = max(self.logs) / temperature
        return most + log(sum(exp(one / temperature - most) for one in self.logs))


@dataclass(frozen=True)
class Fit:
    """A temperature, and its effect on records that it was not fitted to: (before, after) of the loss in nats and of the calibration error."""

    temperature: float
    n: int
    loss: tuple[float, float]
    error: tuple[float, float]

    @property
    def improves(self) -> bool:
        return self.loss[1] < self.loss[0]

    @property
    def kept(self) -> float:
        """Return the temperature to use: 1 where another one does not improve the loss."""
        return self.temperature if self.improves else 1.0

    def to_json(self) -> dict[str, object]:
        """Return it for --json and for the file."""
        return {
            "temperature": self.kept,
            "fitted_temperature": self.temperature,
            "improves": self.improves,
            "n": self.n,
            "nll": {"before": self.loss[0], "after": self.loss[1]},
            "calibration_error": {"before": self.error[0], "after": self.error[1]},
        }

    def text(self) -> str:
        """Return the sentence for a person."""
        figures = f"held-out NLL {self.loss[0]:.3f} to {self.loss[1]:.3f}, calibration error {self.error[0]:.3f} to {self.error[1]:.3f}"
        if self.improves:
            return f"temperature {self.temperature:.2f}: {figures} ({counted(self.n, 'record')})"
        return (
            f"temperature {self.temperature:.2f} does not improve: {figures}; probabilities stay as they are"
        )


@dataclass
class Examples:
    """The examples of one question or field; the fold of each depends on its record's place alone."""

    folds: list[list[Example]] = field(default_factory=lambda: [[] for _ in range(FOLDS)])
    n: int = 0

    def add(self, place: int, example: Example) -> None:
        """Take an example of the record at a place."""
        if self.n < MAX_EXAMPLES:
            self.n += 1
            self.folds[_fold(place)].append(example)

    def fit(self) -> Fit | None:
        """Return the temperature; None where there are too few examples."""
        every = [one for fold in self.folds for one in fold]
        if len(every) < MIN_EXAMPLES or not all(self.folds):
            return None
        before: list[tuple[Example, float]] = []
        after: list[tuple[Example, float]] = []
        for i, held_out in enumerate(self.folds):
            rest = [one for j, fold in enumerate(self.folds) if j != i for one in fold]
            temperature = fitted(rest)
            before += [(one, 1.0) for one in held_out]
            after += [(one, temperature) for one in held_out]
        return Fit(
            fitted(every),
            len(every),
            (mean_loss(before), mean_loss(after)),
            (calibration_error(before), calibration_error(after)),
        )


def fitted(examples: Sequence[Example]) -> float:
    """Return the temperature with the least loss between 0.05 and 20, by golden section over its logarithm."""

    def loss(log_t: float) -> float:
        return sum(one.loss(exp(log_t)) for one in examples)

    return exp(_least(loss, MIN_LOG, MAX_LOG))


def mean_loss(examples: Sequence[tuple[Example, float]]) -> float:
    """Return the mean loss of examples, each at its temperature."""
    return sum(one.loss(temperature) for one, temperature in examples) / len(examples)


def calibration_error(examples: Sequence[tuple[Example, float]]) -> float:
    """Return the expected calibration error over N_BINS bins of equal width (Guo et al. 2017, equation 3)."""
    gaps = [0.0] * N_BINS
    for one, temperature in examples:
        confidence = one.confidence(temperature)
        gaps[min(N_BINS - 1, int(confidence * N_BINS))] += one.is_right - confidence
    return sum(map(abs, gaps)) / len(examples)


@dataclass(frozen=True)
class Calibration:
    """The temperatures of questions and fields, by their names; those of a model, and of a prompt with its labels (TemplateJob.question)."""

    temperatures: Mapping[str, float]
    identity: str
    question: str = ""  # of a file of an earlier version

    def save(self, path: Path, fits: Mapping[str, Fit]) -> None:
        """Write it beside a journal, with the measured effect of each."""
        told = {
            "mixcli": "batch calibration",
            "version": 1,
            "model": self.identity,
            "question": self.question,
            "fields": {name: fit.to_json() for name, fit in fits.items()},
        }
        replace_text(path, json.dumps(told, ensure_ascii=False, indent=1) + "\n", 0o666)


def read_calibration(path: Path) -> Calibration:
    """Read what `save` has written. Raises UsageError for another file."""
    try:
        told = object_of(json.loads(read_regular(path, MAX_BYTES)))
    except (ValueError, RecursionError):
        told = {}
    fields = object_of(told.get("fields"))
    temperatures = {
        name: float(t)
        for name, one in fields.items()
        if is_number(t := object_of(one).get("temperature"), above=LEAST, below=MOST)
    }
    if told.get("mixcli") != "batch calibration" or len(temperatures) < len(fields) or not fields:
        raise UsageError(
            f"--calibration {path} is not a calibration of mixcli batch; fit one with --eval on records with gold labels"
        )
    return Calibration(temperatures, str(told.get("model")), str(told.get("question", "")))


def _least(of: Callable[[float], float], low: float, high: float) -> float:
    """Return where a function with one minimum has it."""
    left, right = high - _GOLDEN * (high - low), low + _GOLDEN * (high - low)
    at_left, at_right = of(left), of(right)
    while high - low > 1e-3:
        if at_left < at_right:
            high, right, at_right = right, left, at_left
            left = high - _GOLDEN * (high - low)
            at_left = of(left)
        else:
            low, left, at_left = left, right, at_right
            right = low + _GOLDEN * (high - low)
            at_right = of(right)
    return (low + high) / 2


def _log(probability: float) -> float:
    return max(FLOOR, log(probability)) if probability > 0 else FLOOR


def _fold(place: int) -> int:
    return hashlib.blake2b(str(place).encode(), digest_size=4).digest()[0] % FOLDS


__all__ = ["Calibration", "Example", "Examples", "Fit", "fitted", "read_calibration"]
