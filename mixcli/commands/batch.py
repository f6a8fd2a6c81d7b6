"""mixcli batch: run a prompt on thousands of records."""

from collections.abc import Callable
from dataclasses import dataclass, fields
from functools import partial, wraps
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import click

from mixcli.commands.asking import (
    endpoint_options,
    local_backend,
    many_asker,
    many_forms_options,
    variables_option,
)
from mixcli.commands.conflicts import CheckedCommand
from mixcli.commands.judging import Judging, judging_options
from mixcli.commands.keep_alive import keep_alive_option
from mixcli.commands.options import (
    F,
    Sampling,
    common,
    model_option,
    planning_options,
    sampling_options,
    with_options,
)
from mixcli.errors import SomeFailed, UsageError
from mixcli.system.console import console

if TYPE_CHECKING:
    from mixcli.batch.batch import BatchOptions, Report
    from mixcli.batch.job import TemplateJob
    from mixcli.batch.runner import Tally
    from mixcli.client.endpoint import Endpoint
    from mixcli.planning.load_options import LoadOptions
    from mixcli.request.output_format import OutputFormat
    from mixcli.request.template import Template


# fields of a result
RESERVED = {"result", "error", "usage", "label_probs", "field_probs", "abstained", "finish_reason"}


@dataclass(frozen=True)
class RecordPrompt:
    """What the command line says about the prompt of every record, as it was written."""

    prompt: str | None
    template: Path | None
    variables: dict[str, str]
    system: str | None
    column: str | None

    def said(self) -> dict[str, bool]:
        """Return every option with whether it was given."""
        return {
            "--prompt": self.prompt is not None,
            "--template": self.template is not None,
            "-v": bool(self.variables),
            "--system": bool(self.system),
            "--column": self.column is not None,
        }

    def spec(self) -> "Template":
        """Read the prompt; UsageError for a variable or column that it does not use."""
        from mixcli.batch.job import prompt_template
        from mixcli.system.stdin import read_text

        question = prompt_template(read_text(self.template) if self.template else self.prompt)
        question.check_used(self.variables, "the prompt")
        if self.column is not None and "text" not in question.names:
            raise UsageError(
                f"--column {self.column} has no effect: the prompt has no {{{{ text }}}}; remove it"
            )
        if question.n_shared * 2 < question.n_constant:
            console.note(
                "most of the prompt follows {{ }}, so records share little of it; put {{ }} last for speed"
            )
        return question


def prompt_options(command: F) -> F:
    """Add where the prompt of a record comes from; the command gets one `asking`."""
    options: tuple[Callable[[F], F], ...] = (
        click.option(
            "--prompt",
            metavar="TEXT",
            help="Prompt template with {{ text }} or a field's name; without one, the record is appended.",
        ),
        click.option(
            "-t",
            "--template",
            type=click.Path(exists=True, dir_okay=False, path_type=Path),
            help="Read the prompt template from a file.",
        ),
        variables_option,
        click.option("--system", metavar="TEXT", help="System message."),
        click.option(
            "--column",
            metavar="NAME",
            help="The field to use as {{ text }}. Default: the field `text`, or the only field.",
        ),
    )

    @wraps(command)
    def collect(**said: Any) -> Any:
        asking = RecordPrompt(**{field.name: said.pop(field.name) for field in fields(RecordPrompt)})
        return command(asking=asking, **said)

    return with_options(cast(F, collect), options)


@click.command("batch", cls=CheckedCommand)
@click.argument("source", metavar="INPUT", type=click.Path(allow_dash=True))
@click.option(
    "-o",
    "--output",
    "out",
    type=click.Path(dir_okay=False, path_type=Path),
    help="Output file. Default: stdout.",
)
@prompt_options
@click.option(
    "--format",
    "format_",
    type=click.Choice(["jsonl", "csv", "tsv", "lines"]),
    help="Format of INPUT; jsonl accepts any JSON. Default: from its name and first line.",
)
@click.option("--keep", multiple=True, metavar="NAME", help="Copy this field to the result; may be repeated.")
@many_forms_options
@sampling_options
@judging_options
@click.option("--unordered", is_flag=True, help="Write results in order of completion, not of the input.")
@click.option(
    "--max-errors",
    type=click.IntRange(min=0),
    metavar="N",
    help="Stop after more than N failed records.  [default: stop if the first 32 fail with the same error]",
)
@click.option(
    "--journal",
    type=click.Path(dir_okay=False, path_type=Path),
    help="Journal of finished results, from which a rerun resumes. Default: OUTPUT.journal.",
)
@click.option(
    "--window",
    type=click.IntRange(1, 1024),
    default=32,
    show_default=True,
    metavar="N",
    help="Number of records in flight.",
)
@click.option(
    "--ray",
    "cluster",
    metavar="ADDRESS",
    help="Run on a Ray cluster: its address (HOST:PORT), or auto for the one that runs on this machine.",
)
@click.option(
    "--deterministic",
    is_flag=True,
    help="Return the same results on every run on the same machine; slower: one record at a time.",
)
@endpoint_options
@model_option
@planning_options
@keep_alive_option
@click.option("--json", "as_json", is_flag=True, help="With --eval and -o: print the evaluation as JSON.")
@common
def command(
    source: str,
    out: Path | None,
    asking: RecordPrompt,
    format_: str | None,
    keep: tuple[str, ...],
    form: "OutputFormat",
    sampling: Sampling,
    judging: Judging,
    unordered: bool,
    max_errors: int | None,
    journal: Path | None,
    window: int,
    cluster: str | None,
    deterministic: bool,
    endpoint: "Callable[[str | None], Endpoint] | None",
    model: str | None,
    load_options: "LoadOptions",
    keep_alive: float,
    as_json: bool,
) -> None:
    """Run a prompt on every record of INPUT: JSON lines, JSON, CSV, TSV, plain lines or an OpenAI batch file; - is stdin.

    Results are JSON lines in input order. A journal saves finished results: rerun the command to resume. A record that cannot be
    read or answered becomes an error record, and the exit code is 3.
    """
    from mixcli.batch.batch import BatchOptions, run_batch
    from mixcli.batch.naming import columns_of
    from mixcli.batch.runner import BatchSettings

    _check_json(out, as_json)
    job, identity = _job(asking, form, _fields(sampling, deterministic=deterministic), keep, judging)
    said = {
        **asking.said(),
        **judging.said(),
        "--keep": bool(keep),
        form.option: bool(form.option),
        **{f"--{name.replace('_', '-')}": True for name in sampling.said()},
    }
    order = BatchOptions(
        source,
        out,
        journal or _journal_of(out),
        format_,
        columns_of(judging.golds, job.questions, form),
        BatchSettings("", window, not unordered, max_errors),
        tuple(name for name, is_said in said.items() if is_said),
        model if endpoint is not None else None,
        tuple(path for path in (asking.template, judging.calibration) if path is not None),
        identity,
        judging.review,
    )
    load = partial(many_asker, endpoint, model, load_options, keep_alive, speculate=bool(sampling.speculate))
    if cluster is None:
        report = run_batch(order, job, load)
    else:
        report = _over_ray(order, job, cluster, model, load_options, keep_alive)
    _print(report, out, as_json)
    _raise_if_failed(report.tally)


def _job(
    asking: RecordPrompt, form: "OutputFormat", asked: dict[str, Any], keep: tuple[str, ...], judging: Judging
) -> "tuple[TemplateJob, str]":
    """Return the job, and the model that its temperatures were fitted to, if any."""
    from mixcli.batch.graded import by_name
    from mixcli.batch.job import TemplateJob
    from mixcli.batch.naming import check_calibrated, questions_of_records

    if "id" in keep:
        raise UsageError("--keep id has no effect: every result has the record's id; remove it")
    if reserved := RESERVED & set(keep):
        raise UsageError(f"--keep {min(reserved)}: this name is reserved for results; rename the field")
    question, fitted = asking.spec(), judging.fitted()
    questions = questions_of_records(judging.asks, question, form)
    check_calibrated(fitted.temperatures, questions, form)
    job = TemplateJob(
        question,
        asking.system or "",
        form,
        asked,
        asking.variables,
        asking.column,
        keep,
        questions,
        by_name(fitted.temperatures),
    )
    if fitted.question not in ("", job.question):
        console.warn(
            "--calibration was fitted for another prompt, or other labels or fields; its temperatures may be wrong here, so fit them again with --eval"
        )
    return job, fitted.identity


def _fields(sampling: Sampling, *, deterministic: bool) -> dict[str, Any]:
    """Return the fields of every request."""
    from mixcli.request.sampling_table import SCRIPT_TEMPERATURE

    determined = {"deterministic": True} if deterministic else {}
    return {"temperature": SCRIPT_TEMPERATURE, **sampling.said(), **determined}


def _raise_if_failed(tally: "Tally") -> None:
    """Raise SomeFailed where records failed."""
    if n_failed := tally.n_failed:
        n_done = tally.n_done
        how_many = f"all {n_done:,}" if n_failed == n_done > 1 else f"{n_failed:,} of {n_done:,}"
        what = "record failed; its line has" if n_done == 1 else "records failed; their lines have"
        raise SomeFailed(f"{how_many} {what} an error")


def _over_ray(
    order: "BatchOptions",
    job: "TemplateJob",
    cluster: str,
    model: str | None,
    load_options: "LoadOptions",
    keep_alive: float,
) -> "Report":
    from mixcli.batch.batch import run_batch
    from mixcli.batch.ray_backend import RayBackend, distant_source, is_distant
    from mixcli.system.own_stdout import own_stdout

    load = partial(local_backend, model, load_options, keep_alive)
    distant = (lambda source: distant_source(cluster, source)) if is_distant(order.source) else None
    with own_stdout():
        return run_batch(order, job, lambda: RayBackend(cluster, load, order.settings.window), distant)


def _journal_of(out: Path | None) -> Path | None:
    """Return the path of an output's journal; None if the output is not a regular file."""
    from quantize.output_target import is_stream

    return None if out is None or is_stream(out) else out.with_name(out.name + ".journal")


def _check_json(out: Path | None, as_json: bool) -> None:
    """Raise UsageError where --json has nothing to print: without -o stdout has the results."""
    if as_json and out is None:
        raise UsageError(
            "--json has no effect without --output, since stdout has the results; add -o FILE, or remove it"
        )


def _print(report: "Report", out: Path | None, as_json: bool) -> None:
    """Print the summary; the evaluation goes to stdout where the results do not."""
    console.note(report.sentence)
    if report.evaluation is None:
        return
    if out is None:
        console.note(report.evaluation.text())
    elif as_json:
        console.data(report.evaluation.to_json())
    else:
        console.line(report.evaluation.text())
