"""Evaluate labels against gold labels: accuracy, F1, confusion matrix, calibration."""

from collections import Counter
from dataclasses import dataclass, field

from mixcli.batch.graded import Graded
from mixcli.request.output_format import ABSTAIN
from mixcli.system.formatting import counted

N_BINS = 10
WIDTH = 30  # characters of a bar
MAX_TABLE = 40  # different values of which each has a row and a column; texts have more


@dataclass
class Bin:
    """Answers that had a probability in one tenth of 0 .. 1: how many, how many of them right, and the sum of the probabilities."""

    n: int = 0
    n_right: int = 0
    confidence: float = 0.0


@dataclass
class Evaluation:
    """Counts that grow with every record; all figures are made of them, so memory does not depend on the input.

    `pairs` counts (gold, answer); an answer that was abstained from is None there, and wrong. `n_without` records had no gold label or no
    answer.
    """

    pairs: Counter[tuple[str, str | None]] = field(default_factory=Counter)
    bins: list[Bin] = field(default_factory=lambda: [Bin() for _ in range(N_BINS)])
    n_without: int = 0

    def add(self, gold: str | None, answer: Graded | None) -> None:
        """Count one record by its answer, if there is one."""
        if not gold or not gold.strip() or answer is None:
            self.n_without += 1
            return
        said, right = answer.text.strip(), answer.gold_text(gold)
        self.pairs[right, None if answer.is_abstained else said] += 1
        if answer.probability is not None:
            confidence = answer.probability.value
            cell = self.bins[min(N_BINS - 1, int(confidence * N_BINS))]
            cell.n += 1
            cell.confidence += confidence
            cell.n_right += said == right

    @property
    def n(self) -> int:
        return self.pairs.total()

    @property
    def labels(self) -> list[str]:
        """Return all labels of gold and answers, sorted; abstentions are not labels."""
        return sorted({label for pair in self.pairs for label in pair if label is not None})

    @property
    def accuracy(self) -> float:
        """Return the share of records that are right."""
        return (
            sum(n for (gold, answer), n in self.pairs.items() if gold == answer) / self.n if self.n else 0.0
        )

    @property
    def macro_f1(self) -> float:
        """Return the mean over all labels of F1, in which every label weighs the same."""
        scores = [self.scores(label)[2] for label in self.labels]
        return sum(scores) / len(scores) if scores else 0.0

    @property
    def calibration_error(self) -> float | None:
        """Return the expected calibration error: |share that is right - mean probability| over the bins, by their size.

        None without probabilities. (Guo et al. 2017, On Calibration of Modern Neural Networks, equation 3.)
        """
        n = sum(cell.n for cell in self.bins)
        return sum(abs(cell.n_right - cell.confidence) for cell in self.bins) / n if n else None

    def scores(self, label: str) -> tuple[float, float, float]:
        """Return precision, recall and F1 of a label; 0 where there is nothing to divide by."""
        right = self.pairs[label, label]
        answered = sum(n for (_, answer), n in self.pairs.items() if answer == label)
        gold = sum(n for (truth, _), n in self.pairs.items() if truth == label)
        return _share(right, answered), _share(right, gold), _share(2 * right, answered + gold)

    def to_json(self) -> dict[str, object]:
        """Return everything for --json."""
        return {
            "n": self.n,
            "n_without": self.n_without,
            "n_abstained": sum(n for (_, answer), n in self.pairs.items() if answer is None),
            "accuracy": self.accuracy,
            "macro_f1": self.macro_f1,
            "calibration_error": self.calibration_error,
            "labels": {
                label: dict(zip(("precision", "recall", "f1"), self.scores(label), strict=True))
                for label in self._in_tables
            },
            "confusion": {
                gold: {self._named(answer): self.pairs[gold, answer] for answer in self._answers()}
                for gold in (self._golds() if self._in_tables else ())
            },
            "calibration": [
                {
                    "from": index / N_BINS,
                    "n": cell.n,
                    "confidence": cell.confidence / cell.n,
                    "right": cell.n_right / cell.n,
                }
                for index, cell in enumerate(self.bins)
                if cell.n
            ],
        }

    def text(self) -> str:
        """Return it for a person, in columns."""
        lines = [f"{counted(self.n, 'record')}: accuracy {self.accuracy:.3f}, macro-F1 {self.macro_f1:.3f}"]
        if self.calibration_error is not None:
            lines[0] += f", calibration error {self.calibration_error:.3f}"
        if self.n_without:
            lines.append(f"{counted(self.n_without, 'record')} skipped: no gold label or no answer")
        lines += self._tables()
        shown = [
            [
                f"{index / N_BINS:.1f}",
                f"{one.n:,}",
                f"{one.confidence / one.n:.3f}",
                f"{one.n_right / one.n:.3f}",
            ]
            for index, one in enumerate(self.bins)
            if one.n
        ]
        if shown:
            head, *rows_of_bins = _columns([["probability from", "records", "mean", "right"], *shown])
            bars = [_drawn(one.confidence / one.n, one.n_right / one.n) for one in self.bins if one.n]
            lines += ["", head, *(f"{row}  {bar}" for row, bar in zip(rows_of_bins, bars, strict=True))]
        return "\n".join(lines)

    @property
    def _in_tables(self) -> list[str]:
        """Return the labels, where they are few enough for tables."""
        return labels if len(labels := self.labels) <= MAX_TABLE else []

    def _tables(self) -> list[str]:
        """Return the scores of each label and the confusion matrix, or why there are none."""
        if len(self.labels) > MAX_TABLE:
            return [f"{len(self.labels):,} different values, more than the {MAX_TABLE} that tables show"]
        scores = [[label, *(f"{score:.3f}" for score in self.scores(label))] for label in self.labels]
        answers = self._answers()
        rows = [[gold, *(str(self.pairs[gold, answer]) for answer in answers)] for gold in self._golds()]
        return [
            "",
            *_columns([["label", "precision", "recall", "F1"], *scores]),
            "",
            *_columns([["gold \\ answer", *map(self._named, answers)], *rows]),
        ]

    def _golds(self) -> list[str]:
        return sorted({gold for gold, _ in self.pairs})

    def _answers(self) -> list[str | None]:
        return sorted({answer for _, answer in self.pairs}, key=lambda answer: (answer is None, answer or ""))

    def _named(self, answer: str | None) -> str:
        """Return an answer as tables name it; a label may be called as an abstention is."""
        if answer is not None:
            return answer
        return ABSTAIN if ABSTAIN not in self.labels else f"({ABSTAIN})"


def _drawn(mean: float, right: float) -> str:
    """Draw the share that is right as a bar, and a line at the mean probability: there the bar of a calibrated model ends."""
    bar = ["█" if i < round(right * WIDTH) else " " for i in range(WIDTH + 1)]
    bar[round(mean * WIDTH)] = "│"
    return "".join(bar).rstrip()


def _share(part: float, whole: float) -> float:
    return part / whole if whole else 0.0


def _columns(rows: list[list[str]]) -> list[str]:
    widths = [max(len(row[at]) for row in rows) for at in range(len(rows[0]))]
    return [
        "  ".join(
            cell.ljust(width) if at == 0 else cell.rjust(width)
            for at, (cell, width) in enumerate(zip(row, widths, strict=True))
        )
        for row in rows
    ]
