"""mixcli imatrix: compute the importance matrix of a model."""

import re
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

import click

from mixcli.commands.conflicts import CheckedCommand
from mixcli.commands.options import (
    BUILT_IN_TEXT,
    TEXT_FILE,
    common,
    forecast_option,
    json_option,
    model_argument,
    reading_options,
)
from mixcli.errors import UsageError
from mixcli.system.console import console
from mixcli.system.formatting import about_time, counted
from mixcli.system.signals import resumable
from mixcli.system.text import as_argument

if TYPE_CHECKING:
    from mixcli.insight.forecast import Work
    from mixcli.insight.imatrix import ImatrixReport
    from mixcli.insight.pieces import TextPiece
    from mixcli.planning.load_options import LoadOptions
    from mixcli.store.store import StoredModel

FEW = 64  # tokens; the importance of an expert that saw fewer is hardly known
SHOWN = 5  # experts that a note names
LOW_BITS = re.compile(r"Q[1-4]|FP4")  # in a file type: Q4_K_M and smaller


@click.command("imatrix", cls=CheckedCommand)
@model_argument
@click.option(
    "--text",
    "path",
    type=TEXT_FILE,
    metavar="FILE",
    help=f"Text to read; - is stdin. {BUILT_IN_TEXT}",
)
@click.option(
    "-o",
    "--output",
    type=click.Path(path_type=Path, dir_okay=False),
    metavar="FILE",
    help="Output file; .dat writes llama.cpp's older format. Default: MODEL.imatrix.gguf in this folder.",
)
@click.option("--process-output", "with_output", is_flag=True, help="Include the output matrix.")
@click.option(
    "--smooth",
    type=click.IntRange(min=0, max=1 << 20),
    default=0,
    show_default=True,
    metavar="TOKENS",
    help="Top up the statistics of experts that saw fewer tokens than this with the average of their layer.",
)
@reading_options
@forecast_option
@json_option
@common
@resumable()
def command(
    model: str | None,
    path: Path | None,
    output: Path | None,
    with_output: bool,
    smooth: int,
    n_chunks: int | None,
    load_options: "LoadOptions",
    dry_run: bool,
    as_json: bool,
) -> None:
    """Compute MODEL's importance matrix: which columns of its matrices matter for a text. `mixcli quantize --imatrix` uses it.

    Without MODEL, the default model is used, or the only one that is installed. A BF16 or Q8_0 file is best. The output
    equals that of llama-imatrix. Rerun the command to resume after an interruption.
    """
    from mixcli.insight.imatrix import ImatrixRequest, compute
    from mixcli.insight.pieces import CALIBRATION, shipped
    from mixcli.planning.launch import installed

    n_ctx = load_options.request.n_ctx or 0
    pieces = tuple(read_pieces([path])) if path else tuple(shipped(CALIBRATION))
    if dry_run:
        show_forecast([(model, "importance")], pieces, load_options, n_chunks, as_json=as_json)
        return
    stored = installed(model, load_options.of_any_context)
    _note_source(stored)
    target = output or Path(f"{stored.path.stem}.imatrix.gguf")
    request = ImatrixRequest(
        pieces, path.name if path else f"mixcli-{CALIBRATION}", n_ctx, n_chunks, with_output, smooth
    )
    with console.progress(f"computing the importance matrix of {stored.label}") as bar:
        report = compute(stored, request, load_options, target, bar)
    _note(report, smooth)
    if as_json:
        console.data(_data(report))
    else:
        console.path(report.path)


def show_forecast(
    readings: "Sequence[tuple[str | None, Work]]",
    pieces: "tuple[TextPiece, ...]",
    load_options: "LoadOptions",
    n_chunks: int | None,
    *,
    as_json: bool,
) -> None:
    """Print about how long models would read, each with what is done with what it computes."""
    from mixcli.insight.forecast import forecast, n_tokens_of, subject_named
    from mixcli.insight.vocabularies import check_alike

    n_ctx = load_options.request.n_ctx or 0
    n_tokens = n_tokens_of(pieces, n_ctx, n_chunks)
    subjects = [subject_named(model, load_options) for model, _ in readings]
    for other in subjects[1:]:
        if subjects[0].header and other.header:  # a model of the catalog has none yet
            check_alike((subjects[0].label, subjects[0].header), (other.label, other.header))
    found = [
        forecast(subject, load_options, n_ctx, n_tokens, work)
        for subject, (_, work) in zip(subjects, readings, strict=True)
    ]
    rows = [
        (
            one.model,
            f"{one.n_tokens:,}",
            f"{one.prefill:,.0f}",
            about_time(one.seconds_host),
            f"{about_time(one.seconds)} after loading",
        )
        for one in found
    ]
    columns = ("MODEL", "TOKENS", "PREFILL TOK/S", "HOST WORK", "TIME")
    console.result([asdict(one) for one in found], columns, rows, as_json=as_json)


def read_pieces(paths: "list[Path]") -> "list[TextPiece]":
    """Return a person's texts; - is stdin. UsageError for what is not text."""
    from mixcli.insight.pieces import from_texts
    from mixcli.system.stdin import file_texts, is_piped, piped_text

    texts = []
    for path in paths:
        if str(path) == "-":
            if not is_piped():
                raise UsageError("--text - is stdin, but nothing is piped in; pipe text in, or pass a file")
            texts.append(piped_text())
        else:
            texts += file_texts([path])
    return from_texts(paths, texts)


def _note_source(stored: "StoredModel") -> None:
    """Print that a larger file makes a better matrix, where the model is quantized to about 4 bits or fewer."""
    from mixcli.store.headers import file_type_of, header_of

    kind = file_type_of(header_of(stored.parts))
    if LOW_BITS.search(kind):
        console.note(
            f"{stored.label} is quantized to {kind}; the importance matrix of its BF16 or Q8_0 file is better"
        )


def _note(report: "ImatrixReport", smooth: int) -> None:
    """Print what was read, and which experts saw little of it."""
    console.note(
        f"read {counted(report.n_tokens, 'token')} in {counted(report.n_chunks, 'chunk')}; "
        f"use it: mixcli quantize SOURCE QUANT --imatrix {as_argument(report.path)}"
    )
    few = [one for one in report.experts if one.n_tokens < FEW]
    if few:
        listed = "; ".join(one.words for one in few[:SHOWN])
        others = f"; and {len(few) - SHOWN:,} more" if len(few) > SHOWN else ""
        step = f"topped up to {smooth:,} by --smooth" if smooth else "use a longer text, or --smooth"
        console.note(
            f"{len(few):,} of {len(report.experts):,} experts saw fewer than {FEW} tokens: {listed}{others}; {step}"
        )


def _data(report: "ImatrixReport") -> dict[str, object]:
    return {
        "file": str(report.path),
        "tokens": report.n_tokens,
        "chunks": report.n_chunks,
        "tensors": report.n_tensors,
        "experts": [
            {"layer": one.layer, "expert": one.expert, "tokens": one.n_tokens} for one in report.experts
        ],
    }
