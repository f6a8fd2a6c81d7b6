"""The options that choose a quant (--prefer, --min-tps), and the table of quants that pull, plan and search show."""

from collections.abc import Callable, Iterable
from functools import wraps
from typing import TYPE_CHECKING, Any, TypeVar, cast

import click

from mixcli.commands.conflicts import given
from mixcli.commands.options import with_options
from mixcli.errors import UsageError
from mixcli.system.console import console
from mixcli.system.formatting import format_bytes

if TYPE_CHECKING:
    from mixcli.pull.quant_choice import TypeRow

F = TypeVar("F", bound=Callable[..., Any])

PREFERENCES = ("balanced", "quality", "speed")
COLUMNS = ("QUANT", "SIZE", "ON GPUS", "IN RAM", "CONTEXT", "DECODE TOK/S", "PREFILL TOK/S", "LOSS", "")


def rule_options(command: F) -> F:
    """Add --prefer and --min-tps; the command gets one `rule`, None where neither was said."""
    options = (
        click.option(
            "--prefer",
            type=click.Choice(PREFERENCES),
            default=PREFERENCES[0],
            show_default=True,
            help="How to choose the quant by its decode rate and loss (rise of perplexity). balanced: accept 2 % more loss for twice the rate; speed: accept 8 %; quality: the lowest loss at 10 tok/s or more.",
        ),
        click.option(
            "--min-tps",
            type=click.FloatRange(min=0.01),
            metavar="N",
            help="Choose only quants that decode at N tok/s or more.",
        ),
    )

    @wraps(command)
    def collect(prefer: Any, min_tps: float | None, **others: Any) -> Any:
        from profiles.request import Rule

        said = sorted(given(click.get_current_context()) & {"--min-tps", "--prefer"}, reverse=True)
        model = str(others.get("model") or "")
        if said and (model.partition(":")[2] or model.lower().endswith(".gguf")):
            raise UsageError(f"{said[0]} chooses a quant, but {model} names one; remove one of them")
        return command(rule=Rule(prefer, min_tps) if said else None, **others)

    return with_options(cast(F, collect), options)


def show_types(rows: Iterable["TypeRow"], data: Any = None, *, as_json: bool = False) -> None:
    """Print the table of a choice to stdout, or its data as JSON: sizes in bytes, rates as their range, the loss of perplexity."""
    console.result(data, COLUMNS, map(_cells, rows), as_json=as_json)


def _cells(row: "TypeRow") -> tuple[str, ...]:
    loss = f"{'~' if row.loss_basis == 'estimated' else ''}{row.loss:.1f} %"
    note = "; ".join(filter(None, (row.reason, "" if row.on_offer else "not in this repository")))
    if not row.fits:
        return row.type, format_bytes(row.size), "", "", "", "does not fit", "", loss, note
    return (
        row.type,
        format_bytes(row.size),
        format_bytes(row.bytes_on_gpus),
        format_bytes(row.bytes_in_memory),
        str(row.n_ctx),
        as_range(row.decode),
        as_range(row.prefill),
        loss,
        note,
    )


def as_range(ends: tuple[float, float]) -> str:
    """Return rates as their range: "69 to 99", "9.3 to 13"."""
    return " to ".join(f"{end:.0f}" if end >= 10 else f"{end:.1f}" for end in ends)
