"""Compare the answers of a batch with gold labels, question by question, and fit the temperatures of their probabilities."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from mixcli.batch.calibration import Calibration, Example, Examples, Fit
from mixcli.batch.evaluation import Evaluation
from mixcli.batch.runner import BatchResult


@dataclass
class _Column:
    """One question or field, and the column that has its gold labels."""

    column: str
    evaluation: Evaluation = field(default_factory=Evaluation)
    examples: Examples = field(default_factory=Examples)
    fit: Fit | None = None


class Grading:
    """Evaluations by the names of questions and fields; the only question of a batch has an empty name.

    With `fits` temperatures are fitted at the end; not where the probabilities are calibrated already.
    """

    def __init__(self, golds: Mapping[str, str], *, fits: bool) -> None:
        self._columns = {name: _Column(column) for name, column in golds.items()}
        self._fits = fits

    def add(self, done: BatchResult) -> None:
        """Count one record."""
        for name, one in self._columns.items():
            gold = (done.record.find(one.column) or "").strip()
            answer = done.graded.get(name)
            one.evaluation.add(gold, answer)
            if self._fits and gold and answer is not None and answer.probability is not None:
                example = Example.of(answer.probability, answer.text.strip(), answer.gold_text(gold))
                if example is not None:
                    one.examples.add(done.index, example)

    def finish(self, identity: str, question: str, path: Path | None) -> list[str]:
        """Fit the temperatures and keep them at `path`, if any, with the model and the prompt that they are for; return what to tell of it."""
        for one in self._columns.values():
            one.fit = one.examples.fit() if self._fits else None
        fits = {name: one.fit for name, one in self._columns.items() if one.fit is not None}
        if not any(fit.improves for fit in fits.values()):
            return []
        if path is None:
            return ["the temperatures are not saved: without -o there is no journal; pass -o or --journal"]
        Calibration({}, identity, question).save(path, fits)
        return [f"temperatures are saved in {path}; apply them with --calibration {path}"]

    def to_json(self) -> dict[str, object]:
        """Return everything for --json: of the only question directly, else by names."""
        told = {
            name: {
                **one.evaluation.to_json(),
                "calibration_fit": one.fit.to_json() if one.fit is not None else None,
            }
            for name, one in self._columns.items()
        }
        return told[""] if list(told) == [""] else {"fields": told}

    def text(self) -> str:
        """Return it for a person."""
        blocks = []
        for name, one in self._columns.items():
            head = [f"{name}:"] if name else []
            tail = ["", one.fit.text()] if one.fit is not None else []
            blocks.append("\n".join([*head, one.evaluation.text(), *tail]))
        return "\n\n".join(blocks)


def calibration_path(journal: Path | None) -> Path | None:
    """Return where the temperatures of a batch are kept: beside its journal."""
    if journal is None:
        return None
    return journal.with_name(journal.name.removesuffix(".journal") + ".calibration.json")
