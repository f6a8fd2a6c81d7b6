"""mixcli pull --fit: a checkpoint of the Hub as the file that fits this machine."""

from pathlib import Path
from typing import TYPE_CHECKING

import click

from mixcli.commands.auto_imatrix import AUTO, largest_installed
from mixcli.commands.conflicts import given
from mixcli.commands.tailor import goal_of
from mixcli.errors import UsageError
from mixcli.system.console import console
from mixcli.system.formatting import counted, format_bytes
from mixcli.system.text import missing

if TYPE_CHECKING:
    from mixcli.planning.load_options import LoadOptions
    from mixcli.store.store import StoredModel

AS_IT_IS = "BF16"  # the quant of a checkpoint before anything is chosen


def fitted(
    model: str | None,
    name: str | None,
    imatrix: str | None,
    size: str | None,
    load_options: "LoadOptions",
    keep_source: bool,
) -> "StoredModel":
    """Measure the shards of a checkpoint while they arrive, choose types, and write the file in a second pass; return the installed model.

    Raises UsageError where no model is named, no quant of it is installed that reads, or its weights are not safetensors.
    """
    from mixcli.insight.pieces import CALIBRATION, shipped
    from mixcli.planning.load_options import LoadOptions
    from mixcli.planning.machines import machine_of, target_of
    from mixcli.pull.pull import PullRequest, pull
    from mixcli.pull.safetensors_pull import StreamJob
    from mixcli.tailor.from_hub import fitted_job, hub_subject
    from mixcli.tailor.measuring import ReadTexts, read_texts
    from profiles.request import PlanRequest

    matrix = _checked(model, imatrix)
    assert model
    machine = machine_of(load_options.profile, load_options.vram, load_options.ram, load_options.workers)
    goal = goal_of(size, None, False, machine)
    reader = largest_installed(model, load_options, "--fit")
    with console.progress(f"pulling {model}") as bar:
        job = pull(
            PullRequest(model, AS_IT_IS, name, keep_source),
            target_of(load_options, measure=False),
            bar.update,
        )
    if not isinstance(job, StreamJob):
        raise UsageError(
            f"{model} is not a repository of safetensors, or is installed as BF16; use: mixcli tailor {reader.label}"
        )
    subject = hub_subject(job, reader)
    reading = LoadOptions(PlanRequest())
    with console.progress(f"reading with {reader.label}") as bar:
        found = read_texts(
            subject,
            reader,
            ReadTexts(tuple(shipped(CALIBRATION)), f"mixcli-{CALIBRATION}"),
            matrix,
            reading,
            bar,
        )
    shards = counted(len(job.shards), "shard")
    console.note(
        f"{shards}, {format_bytes(sum(one.size for one in job.shards))}, are read twice: to measure, and to write"
    )
    with console.progress(f"measuring {shards}") as bar:
        job, file = fitted_job(job, subject, found, goal, machine, load_options.request, bar)
    console.note(
        f"{subject.name}, {goal.words}, context {file.row.n_ctx:,}: {format_bytes(file.n_bytes)}; not compared with other files on text, which `mixcli compare` does"
    )
    with console.progress(f"pulling {job.about.name}:{job.type}", unit="bytes") as bar:
        return job.carry_out(bar.update)


def _checked(model: str | None, imatrix: str | None) -> Path | None:
    """Return the importance matrix that a person gives; UsageError for options that do not go together."""
    said = given(click.get_current_context())
    if needless := sorted(said & {"--quant", "--prefer", "--min-tps", "--dry-run", "--offline", "--repair"}):
        raise UsageError(f"--fit chooses every type by measuring; remove {needless[0]}")
    if "--fit" not in said:
        raise UsageError("--size belongs to --fit; pass both, or neither")
    if model is None:
        raise UsageError("--fit needs a model; name one, such as mixtral or org/repo")
    if imatrix in (None, AUTO):
        return None
    path = Path(str(imatrix)).absolute()
    if not path.is_file():
        raise UsageError(missing(str(imatrix)))
    return path
