"""mixcli compare: compare quants of a model by size, quality and speed."""

import sys
from pathlib import Path
from typing import TYPE_CHECKING

import click

from mixcli.commands.completion import complete_models
from mixcli.commands.conflicts import CheckedCommand
from mixcli.commands.options import NAME_OR_PATH, common, json_option, reading_options, texts_option
from mixcli.commands.perplexity import estimate_cell, read_texts, significant
from mixcli.system.console import console
from mixcli.system.formatting import format_bytes

if TYPE_CHECKING:
    from mixcli.insight.compare import ComparedModel
    from mixcli.planning.load_options import LoadOptions

COLUMNS = ("MODEL", "SIZE", "BITS PER WEIGHT", "PERPLEXITY", "KL MEAN", "SAME TOKEN", "PREFILL TOK/S", "DECODE TOK/S", "MEMORY")  # fmt: skip


@click.command("compare", cls=CheckedCommand)
@click.argument("models", nargs=-1, required=True, type=NAME_OR_PATH, shell_complete=complete_models, metavar="MODEL[:QUANT,QUANT…]...")  # fmt: skip
@texts_option
@reading_options
@json_option
@common
def command(
    models: tuple[str, ...],
    paths: tuple[Path, ...],
    n_chunks: int | None,
    load_options: "LoadOptions",
    as_json: bool,
) -> None:
    """Compare quants of one model: size, distance from the largest, and speed on this machine.

    Name installed models or files: mixtral:Q3_K_M,Q4_K_M,Q8_0. The largest is the baseline of the others. Rates are measured.
    """
    from mixcli.insight.compare import compared, models_named
    from mixcli.insight.perplexity import PerplexityRequest
    from mixcli.insight.picture import PlottedModel, drawn

    found = models_named(models)
    request = PerplexityRequest(read_texts(paths), load_options.request.n_ctx or 0, n_chunks)
    with console.progress("comparing") as bar:
        rows = compared(found, request, load_options, bar)

    def show() -> None:
        console.table(COLUMNS, map(_cells, rows))
        points = [
            PlottedModel(Path(row.label).name, row.n_bytes, row.scores.kl_mean.value)
            for row in rows
            if row.scores and row.scores.kl_mean and row.scores.kl_mean.value > 0
        ]
        if len(points) > 1 and console.is_terminal(sys.stdout):
            console.line()
            for line in drawn(points):
                console.line(line)

    console.page([row.to_data() for row in rows], show, as_json=as_json)


def _cells(row: "ComparedModel") -> tuple[str, ...]:
    quality = ("baseline", "")
    if row.scores and row.scores.kl_mean and row.scores.agreement:
        kl, share = row.scores.kl_mean, row.scores.agreement
        quality = (estimate_cell(kl, significant(kl.value)), f"{100 * share.value:.1f} %")
    speed = ("", "", "does not fit")
    if row.speed:
        memory = ", ".join(f"{device} {format_bytes(n)}" for device, n in row.speed.bytes_on.items())
        speed = (f"{row.speed.prefill:.0f}", f"{row.speed.decode:.1f}", memory)
    return (
        row.label,
        format_bytes(row.n_bytes),
        f"{row.bits:.2f}",
        estimate_cell(row.perplexity, 3),
        *quality,
        *speed,
    )
