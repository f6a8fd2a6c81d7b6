"""Fit a checkpoint of the Hub to a machine in passes over its shards: one that measures, one that writes."""

from collections.abc import Sequence
from dataclasses import replace

from mixcli.errors import UsageError
from mixcli.pull.pull_plan import PullPlan
from mixcli.pull.quant_choice import how_it_runs, rows_of
from mixcli.pull.safetensors_pull import StreamJob
from mixcli.store import build_folder
from mixcli.store.store import StoredModel
from mixcli.system import paths
from mixcli.system.console import Bar
from mixcli.system.formatting import counted
from mixcli.system.json_cache import replace_text
from mixcli.tailor.fitting import FittedFile, TailorGoal, candidates_for
from mixcli.tailor.measuring import PassResult, measured_problem
from mixcli.tailor.subject import TailorSubject
from mixcli.tailor.tailoring import Tailoring, nearest_standard, unmeasured
from mixcli.tailor.verification import RecipeMaker, recipe_path, within_size
from profiles.machine import Machine
from profiles.request import PlanRequest

TYPE = "TAILORED"  # in place of a quant in the name of the model


def hub_subject(job: StreamJob, reader: StoredModel | None) -> TailorSubject:
    """Return the checkpoint of a pull as what a file is made of; `reader` is an installed quant of it, which reads the texts."""
    return TailorSubject(job.model, job.about.name.rpartition("/")[2], reader, job.about.name)


def fitted_plan(
    job: StreamJob,
    subject: TailorSubject,
    goal: TailorGoal,
    machine: Machine,
    request: PlanRequest,
    notes: Sequence[str] = (),
) -> PullPlan:
    """Return what a fitted pull means, before a shard is read: how large the file becomes and how it runs, but not which types it has.

    Raises DoesNotFit where no file meets the goal.
    """
    tailoring = unmeasured(subject, goal, machine, request)
    tailoring.check()
    row = replace(tailoring.fitting(tailoring.n_ctx).tailored(goal).row, type=TYPE)
    once = job.summary
    planned = replace(job.planned, rows=(row, *job.planned.rows), chosen=row)
    passes = "twice: a pass that measures, and one that writes"
    return replace(
        once,
        label=f"{job.about.name}:{TYPE}",
        origin=f"{job.repo.repo} at {job.repo.commit[:12]}, fitted during the download",
        size=row.size,
        download=once.download if job.keep_source else 2 * once.download,
        disk=once.disk - once.size + row.size,
        fit=how_it_runs(row),
        fits=row.plan is not None,
        notes=(
            f"{counted(len(job.shards), 'shard')} are {'read' if job.keep_source else 'downloaded'} {passes}",
            *notes,
        ),
        types=rows_of(planned, TYPE, named=True),
        seconds=0.0,
        chosen_by=None,
    )


def fitted_job(
    job: StreamJob,
    subject: TailorSubject,
    found: PassResult,
    goal: TailorGoal,
    machine: Machine,
    request: PlanRequest,
    bar: Bar,
) -> tuple[StreamJob, FittedFile]:
    """Measure every shard as it arrives, choose the types, and return the pull that writes them, with the file that it makes.

    The disk holds two shards at most; a pass that was interrupted resumes. Raises DoesNotFit where no file meets the goal.
    """
    with build_folder.building(job.about.name, TYPE, bar.update, job.about.revision) as (work, done):
        if done is not None:
            raise UsageError(
                f"{done.label} is already installed; remove it first (mixcli rm {done.label}), or pass another --name"
            )
        supply = job.supply(work, bar.update)
        candidates = candidates_for(subject, goal, machine)
        problem = measured_problem(subject, found, candidates, bar, supply=supply)
    tailoring = Tailoring(subject, problem, goal, machine, request)
    table = tailoring.table(tailoring.n_ctx)
    maker = RecipeMaker(found.imatrix, found.imatrix_path, f"{goal.words}, context {table.n_ctx}")
    named = f"{work.name.removesuffix('.part').lstrip('.')}.gguf"
    place = (
        paths.private(paths.cache_dir() / "tailor") / named
    )  # of the recipe; the file itself is made in the store
    file, near = table.tailored, nearest_standard(table)
    if goal.kind == "size":
        file = within_size(tailoring, file, maker, near, int(goal.value), place)
    path = recipe_path(place)
    replace_text(path, maker.recipe(file, near).to_json() + "\n")
    row = replace(file.row, type=TYPE)
    planned = replace(job.planned, rows=(*job.planned.rows, row), chosen=row)
    return replace(job, type=TYPE, recipe=path, imatrix=found.imatrix_path, planned=planned), file
