"""Options of batch about what is asked of a record and how far its answers can be trusted."""

from collections.abc import Callable
from dataclasses import dataclass, fields
from functools import wraps
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar, cast

import click

from mixcli.commands.options import with_options

if TYPE_CHECKING:
    from mixcli.batch.calibration import Calibration

F = TypeVar("F", bound=Callable[..., Any])


@dataclass(frozen=True)
class Judging:
    """What the command line says of questions, gold labels, calibration and review, as it was written."""

    asks: tuple[str, ...]
    golds: tuple[str, ...]
    calibration: Path | None
    review: Path | None

    def said(self) -> dict[str, bool]:
        """Return every option with whether it was given."""
        return {
            "--ask": bool(self.asks),
            "--eval": bool(self.golds),
            "--calibration": self.calibration is not None,
            "--review": self.review is not None,
        }

    def fitted(self) -> "Calibration":
        """Read the temperatures of --calibration; none without."""
        from mixcli.batch.calibration import Calibration, read_calibration

        return Calibration({}, "") if self.calibration is None else read_calibration(self.calibration)


def judging_options(command: F) -> F:
    """Add --ask, --eval, --calibration and --review; the command gets one `judging`."""
    options: tuple[Callable[[F], F], ...] = (
        click.option(
            "--ask",
            "asks",
            multiple=True,
            metavar="NAME=QUESTION",
            help="Ask this about each record, and call the answer NAME. QUESTION may end with labels, (a|b), or fields, {name, age int}. May be repeated.",
        ),
        click.option(
            "--eval",
            "golds",
            multiple=True,
            metavar="NAME",
            help="Compare the answers with the labels in this field: accuracy, macro-F1, confusion matrix, calibration. With --schema or --ask: NAME or NAME=FIELD, may be repeated.",
        ),
        click.option(
            "--calibration",
            type=click.Path(exists=True, dir_okay=False, path_type=Path),
            help="Correct probabilities with the temperatures that an earlier run with --eval fitted.",
        ),
        click.option(
            "--review",
            type=click.Path(dir_okay=False, path_type=Path),
            help="With --abstain: write the records that need review to this file, the least certain first.",
        ),
    )

    @wraps(command)
    def collect(**said: Any) -> Any:
        judging = Judging(**{field.name: said.pop(field.name) for field in fields(Judging)})
        return command(judging=judging, **said)

    return with_options(cast(F, collect), options)
