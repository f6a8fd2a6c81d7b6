"""mixcli perplexity: measure how well a model predicts texts, and how far it is from a baseline."""

from math import floor, log10
from pathlib import Path
from typing import TYPE_CHECKING

import click

from mixcli.commands.completion import complete_models
from mixcli.commands.conflicts import CheckedCommand
from mixcli.commands.imatrix import read_pieces, show_forecast
from mixcli.commands.options import (
    NAME_OR_PATH,
    common,
    forecast_option,
    json_option,
    model_argument,
    reading_options,
    texts_option,
)
from mixcli.system.console import console

if TYPE_CHECKING:
    from mixcli.insight.forecast import Work
    from mixcli.insight.pieces import TextPiece
    from mixcli.insight.statistics import Estimate, TextScores
    from mixcli.planning.load_options import LoadOptions


@click.command("perplexity", cls=CheckedCommand)
@model_argument
@texts_option
@click.option(
    "--baseline",
    type=NAME_OR_PATH,
    metavar="MODEL",
    shell_complete=complete_models,
    help="Compare with a larger quant of the same model, such as BF16 or Q8_0.",
)
@reading_options
@forecast_option
@json_option
@common
def command(
    model: str | None,
    paths: tuple[Path, ...],
    baseline: str | None,
    n_chunks: int | None,
    load_options: "LoadOptions",
    dry_run: bool,
    as_json: bool,
) -> None:
    """Measure how well MODEL predicts texts: perplexity, as llama-perplexity computes it.

    With --baseline also the Kullback-Leibler divergence from that model in nats, and how often both predict the same token. The two models
    are loaded one after the other. Without MODEL, the default model is measured, or the only one that is installed.
    """
    from mixcli.insight.perplexity import PerplexityRequest, measure
    from mixcli.planning.launch import installed

    if dry_run:
        readings: list[tuple[str | None, Work]] = [(model, "scores")]
        if baseline is not None:
            readings.append((baseline, "baseline"))
        show_forecast(readings, read_texts(paths), load_options, n_chunks, as_json=as_json)
        return
    stored = installed(model, load_options.of_any_context)
    other = None if baseline is None else installed(baseline, load_options.of_any_context)
    request = PerplexityRequest(read_texts(paths), load_options.request.n_ctx or 0, n_chunks)
    with console.progress(f"measuring {stored.label}") as bar:
        rows = measure(stored, other, request, load_options, bar)
    data = {
        "model": stored.label,
        "baseline": other and other.label,
        "texts": [row.to_data() for row in rows],
    }
    columns = ("TEXT", "TOKENS", "PERPLEXITY")
    more = ("BASELINE", "KL MEAN", "KL MEDIAN", "KL 99 %", "SAME TOKEN") if other else ()
    console.result(data, (*columns, *more), map(_cells, rows), as_json=as_json)


def read_texts(paths: tuple[Path, ...]) -> "tuple[TextPiece, ...]":
    """Return the texts to measure on: a person's own, or the built-in ones."""
    from mixcli.insight.pieces import HELD_OUT, shipped

    return tuple(read_pieces(list(paths)) if paths else shipped(HELD_OUT))


def _cells(row: "TextScores") -> tuple[str, ...]:
    cells: tuple[str, ...] = (row.name, f"{row.n_tokens:,}", estimate_cell(row.perplexity, 3))
    if row.baseline_perplexity and row.kl_mean and row.kl_median and row.kl_p99 and row.agreement:
        share = row.agreement
        cells += (
            estimate_cell(row.baseline_perplexity, 3),
            *(estimate_cell(one, significant(one.value)) for one in (row.kl_mean, row.kl_median, row.kl_p99)),
            f"{100 * share.value:.1f} %" + ("" if share.error is None else f" ± {100 * share.error:.1f}"),
        )
    return cells


def significant(value: float) -> int:
    """Return the decimals that show three digits of a value below one, at most nine."""
    return min(9, max(3, 2 - floor(log10(value)))) if value > 0 else 3


def estimate_cell(one: "Estimate", digits: int) -> str:
    """Return a value with its standard error, where there is one, in so many decimals."""
    return f"{one.value:.{digits}f}" + ("" if one.error is None else f" ± {one.error:.{digits}f}")
