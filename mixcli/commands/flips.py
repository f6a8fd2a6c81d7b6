"""The part of mixcli compare that asks models about records and prints how many answers differ."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from mixcli.commands.asking import local_backend
from mixcli.commands.batch import RecordPrompt
from mixcli.errors import SomeFailed, UsageError
from mixcli.system.console import console
from mixcli.system.formatting import counted

if TYPE_CHECKING:
    from mixcli.batch.job import TemplateJob
    from mixcli.batch.record import Record
    from mixcli.insight.flips import AnsweringModel, FlipReport
    from mixcli.planning.load_options import LoadOptions
    from mixcli.request.output_format import OutputFormat
    from mixcli.store.store import StoredModel

COLUMNS = ("MODEL", "RECORDS", "DIFFERENT", "95 % INTERVAL", "DECISION")
GOLD_COLUMNS = ("RIGHT", "LARGEST RIGHT", "MCNEMAR P")


def compare_answers(
    models: "Sequence[StoredModel]",
    path: Path,
    asking: RecordPrompt,
    form: "OutputFormat",
    gold: str | None,
    format_: str | None,
    tolerance: float,
    load_options: "LoadOptions",
    *,
    deterministic: bool,
    as_json: bool,
) -> None:
    """Ask models, largest first, about the records of a file, and print on which the others answer differently.

    Raises UsageError for records that cannot be asked about, the errors of a load, and SomeFailed where records failed.
    """
    from mixcli.batch.job import TemplateJob
    from mixcli.insight.flips import FlipQuestion, flips
    from mixcli.request.sampling_table import SCRIPT_TEMPERATURE

    if not form.option:
        raise UsageError(
            "free answers are worded differently each time; add --choice, --schema, --regex or --grammar"
        )
    sampling = {"temperature": SCRIPT_TEMPERATURE, **({"deterministic": True} if deterministic else {})}
    job = TemplateJob(asking.spec(), asking.system or "", form, sampling, asking.variables, asking.column)
    records, n_bad = _records(path, format_, job, gold)
    load_options = replace(load_options, request=replace(load_options.request, n_ctx=None))
    asked = [_answering(one, load_options) for one in models]
    found = flips(asked, records, FlipQuestion(job, tolerance, gold))
    data = {
        "largest": asked[0].label,
        "tolerance": tolerance,
        "models": [one.to_data() for one in found],
    }

    def show() -> None:
        console.table((*COLUMNS, *(GOLD_COLUMNS if gold else ())), map(_cells, found))
        for one in found:
            console.prose(sentence(one, tolerance))

    console.page(data, show, as_json=as_json)
    if n_failed := n_bad + max(one.n_failed for one in found):
        raise SomeFailed(
            f"{counted(n_failed, 'record')} failed and {'are' if n_failed > 1 else 'is'} not counted"
        )


def sentence(one: "FlipReport", tolerance: float) -> str:
    """Return the answer to whether a file answers as the largest does."""
    share = f"{one.n_flips:,} of {counted(one.n_records, 'answer')} differ"
    low, high = (f"{100 * value:.1f} %" for value in (one.share.low, one.share.high))
    said = {
        "alike": f"{one.label} answers like {one.largest}: {share}, which is at most {high} of all",
        "different": f"{one.label} does not answer like {one.largest}: {share}, which is at least {low} of all",
        "undecided": f"{one.label}: {share}, which is {low} to {high} of all; "
        f"use more records to decide whether it is less than {100 * tolerance:g} %",
    }[one.decision]
    if one.gold is None or not one.gold.n:
        return said
    better = "less" if one.gold.n_right < one.gold.n_right_largest else "more"
    chance = (
        f"{better} often than {one.largest}"
        if one.gold.p_value <= 0.05
        else f"as often as {one.largest}, as far as these records tell"
    )
    return f"{said}; it is right {chance}"


def _cells(one: "FlipReport") -> tuple[str, ...]:
    share = one.n_flips / one.n_records if one.n_records else 0
    cells = (
        one.label,
        f"{one.n_records:,}",
        f"{one.n_flips:,} ({100 * share:.1f} %)",
        f"{100 * one.share.low:.1f} to {100 * one.share.high:.1f} %",
        one.decision,
    )
    if one.gold is None:
        return cells
    right = (one.gold.n_right, one.gold.n_right_largest)
    shares = (f"{100 * n / one.gold.n:.1f} %" if one.gold.n else "" for n in right)
    return (*cells, *shares, f"{one.gold.p_value:.3g}")


def _answering(stored: "StoredModel", load_options: "LoadOptions") -> "AnsweringModel":
    from mixcli.insight.flips import AnsweringModel
    from mixcli.planning.launch import identity
    from quantize.bindings import VERSION

    return AnsweringModel(
        stored.label,
        f"{identity(stored.label, load_options)}, KV cache {load_options.request.kv}, llama.cpp {VERSION}",
        lambda: local_backend(stored.label, load_options, 0.0),
    )


def _records(
    path: Path, format_: str | None, job: "TemplateJob", gold: str | None
) -> "tuple[list[Record], int]":
    """Return the records to ask about, and how many of the file cannot be read."""
    from mixcli.batch.batch import checked_records
    from mixcli.insight.flips import sample

    with checked_records(str(path), format_, job, gold) as source:
        records, n_bad = sample(source.records)
    if not records:
        raise UsageError(f"{path} has no records; choose another file")
    return records, n_bad
