"""mixcli compare: compare quants of a model by size, quality and speed, or by their answers to records."""

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import click

from mixcli.commands.asking import form_options
from mixcli.commands.batch import RecordPrompt, prompt_options
from mixcli.commands.completion import complete_models
from mixcli.commands.conflicts import CheckedCommand, given
from mixcli.commands.options import NAME_OR_PATH, common, json_option, reading_options, texts_option
from mixcli.commands.perplexity import estimate_cell, read_texts, significant
from mixcli.errors import UsageError
from mixcli.system.console import console
from mixcli.system.formatting import format_bytes

if TYPE_CHECKING:
    from mixcli.insight.compare import ComparedModel
    from mixcli.insight.picture import PlottedModel
    from mixcli.planning.load_options import LoadOptions
    from mixcli.request.output_format import OutputFormat
    from mixcli.store.store import StoredModel

COLUMNS = ("MODEL", "SIZE", "BITS PER WEIGHT", "PERPLEXITY", "KL MEAN", "SAME TOKEN", "PREFILL TOK/S", "DECODE TOK/S", "MEMORY")  # fmt: skip


class CompareCommand(CheckedCommand):
    """The command, for which a file of records among the models is the same as --records."""

    def given(self, ctx: click.Context) -> set[str]:
        found = given(ctx)
        return found | {"--records"} if any(map(is_records, ctx.params["models"])) else found


@click.command("compare", cls=CompareCommand)
@click.argument("models", nargs=-1, required=True, type=NAME_OR_PATH, shell_complete=complete_models, metavar="MODEL[:QUANT,QUANT…]...")  # fmt: skip
@texts_option
@reading_options
@click.option(
    "--svg",
    "picture",
    type=click.Path(dir_okay=False, path_type=Path),
    metavar="FILE",
    help="Draw size and quality into an SVG file; needs the extra `plots`.",
)
@click.option(
    "--records",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    metavar="FILE",
    help="Compare answers to these records, in any format that `mixcli batch` reads. Also accepted as an argument.",
)
@prompt_options
@form_options
@click.option("--eval", "gold", metavar="NAME", help="Compare the answers with the labels in this field too.")
@click.option(
    "--format",
    "format_",
    type=click.Choice(["jsonl", "csv", "tsv", "lines"]),
    help="Format of the records. Default: from the name and first line.",
)
@click.option(
    "--tolerance",
    type=click.FloatRange(0, 1, min_open=True),
    default=0.05,
    show_default=True,
    metavar="SHARE",
    help="Share of answers that may differ. Stops once the share is certain to be below or above it.",
)
@click.option(
    "--deterministic", is_flag=True, help="Answer one record at a time: rounding differs between batches."
)
@json_option
@common
def command(
    models: tuple[str, ...],
    paths: tuple[Path, ...],
    n_chunks: int | None,
    load_options: "LoadOptions",
    picture: Path | None,
    records: Path | None,
    asking: RecordPrompt,
    form: "OutputFormat",
    gold: str | None,
    format_: str | None,
    tolerance: float,
    deterministic: bool,
    as_json: bool,
) -> None:
    """Compare quants of one model: size, divergence from the largest, and speed on this machine.

    Pass installed models or files: mixtral:Q3_K_M,Q4_K_M,Q8_0. The largest is the baseline of the others. Rates are measured.

    With a file of records, the answers are compared instead: how many differ from the largest file's. Rerun the command to resume.
    """
    from mixcli.insight.compare import models_named

    files = [Path(name) for name in models if is_records(name)] + ([records] if records else [])
    found = models_named([name for name in models if not is_records(name)])
    if len(files) > 1:
        raise UsageError(f"{files[0]} and {files[1]} are both records; pass one file")
    if files:
        from mixcli.commands.flips import compare_answers

        compare_answers(
            found, files[0], asking, form, gold, format_, tolerance, load_options,
            deterministic=deterministic, as_json=as_json,
        )  # fmt: skip
    else:
        _compare_texts(found, paths, n_chunks, load_options, picture, as_json=as_json)


def is_records(name: str) -> bool:
    """Return whether an argument is a file of records and no model; a pipe is never a model, and what is read of it is gone."""
    from quantize.output_target import is_gguf

    path = Path(name)
    try:
        if path.is_file():
            with path.open("rb") as file:
                return not is_gguf(file.read(4))
        return path.is_fifo()
    except (OSError, ValueError):
        return False


def _compare_texts(
    models: "Sequence[StoredModel]",
    paths: tuple[Path, ...],
    n_chunks: int | None,
    load_options: "LoadOptions",
    picture: Path | None,
    *,
    as_json: bool,
) -> None:
    from mixcli.insight.compare import compared
    from mixcli.insight.perplexity import PerplexityRequest
    from mixcli.insight.picture import drawn

    if picture is not None:
        from mixcli.insight.svg import check_svg

        check_svg(picture)
    request = PerplexityRequest(read_texts(paths), load_options.request.n_ctx or 0, n_chunks)
    with console.progress("comparing") as bar:
        rows = compared(models, request, load_options, bar)
    points = _points(rows)

    def show() -> None:
        console.table(COLUMNS, map(_cells, rows))
        if len(points) > 1 and console.is_terminal(sys.stdout):
            console.line()
            for line in drawn(points):
                console.line(line)

    console.page([row.to_data() for row in rows], show, as_json=as_json)
    if picture is not None:
        from mixcli.insight.svg import write_svg

        write_svg(picture, points)
        console.note(f"wrote {picture}")


def _points(rows: "Sequence[ComparedModel]") -> "list[PlottedModel]":
    from mixcli.insight.picture import PlottedModel

    return [
        PlottedModel(Path(row.label).name, row.n_bytes, row.scores.kl_mean.value, row.scores.kl_mean.error)
        for row in rows
        if row.scores and row.scores.kl_mean and row.scores.kl_mean.value > 0
    ]


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
