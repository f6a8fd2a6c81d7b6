"""mixcli pull --fit: a checkpoint of the Hub as the file that fits this machine."""

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Self

import click

from mixcli.commands.auto_imatrix import AUTO, largest_installed
from mixcli.commands.conflicts import given
from mixcli.commands.tailor import goal_of
from mixcli.errors import UsageError
from mixcli.system.console import console
from mixcli.system.formatting import counted, format_bytes
from mixcli.system.text import as_argument, not_a_file

if TYPE_CHECKING:
    from mixcli.planning.load_options import LoadOptions
    from mixcli.pull.pull_plan import PullPlan
    from mixcli.pull.safetensors_pull import StreamJob
    from mixcli.store.store import StoredModel
    from mixcli.tailor.fitting import TailorGoal
    from profiles.machine import Machine

AS_IT_IS = "BF16"  # the quant of a checkpoint before anything is chosen


@dataclass(frozen=True)
class FittedPull:
    """What `mixcli pull --fit` was asked for: a model, the name of the result, an importance matrix, what to fit to, and a machine."""

    model: str
    name: str | None
    imatrix: Path | None
    goal: "TailorGoal"
    machine: "Machine"
    load_options: "LoadOptions"
    keep_source: bool

    @classmethod
    def of(
        cls,
        model: str | None,
        name: str | None,
        imatrix: str | None,
        size: str | None,
        load_options: "LoadOptions",
        keep_source: bool,
    ) -> Self:
        """Read the command line; UsageError for options that do not go together, or where no model is named."""
        from mixcli.planning.machines import machine_of

        matrix = _checked(model, imatrix)
        assert model
        machine = machine_of(load_options.profile, load_options.vram, load_options.ram, load_options.workers)
        if size is None and not machine.gpus:
            raise UsageError("no GPU to fit the file to; pass --size SIZE, or a --profile with a GPU")
        return cls(model, name, matrix, goal_of(size), machine, load_options, keep_source)

    def plan(self) -> "PullPlan":
        """Return what a pull means, from the headers of the shards; DoesNotFit where no file meets the limit."""
        from mixcli.tailor.from_hub import fitted_plan, hub_subject

        try:
            self._reader()
        except UsageError as error:
            notes: tuple[str, ...] = (str(error),)
        else:
            notes = ()
        job = self._job()
        subject = hub_subject(job, None)
        return fitted_plan(job, subject, self.goal, self.machine, self.load_options.request, notes)

    def carry_out(self) -> "StoredModel":
        """Measure the shards while they arrive, choose types, and write the file in a second pass; return the installed model.

        Raises UsageError where no quant of the model is installed that reads, or its weights are not safetensors, DoesNotFit as `plan` does.
        """
        from mixcli.insight.pieces import CALIBRATION, shipped
        from mixcli.planning.load_options import LoadOptions
        from mixcli.tailor.from_hub import fitted_job, hub_subject
        from mixcli.tailor.measuring import ReadTexts, read_texts
        from mixcli.tailor.reader import TextReader
        from mixcli.tailor.tailoring import unmeasured
        from profiles.request import PlanRequest

        reader, request = self._reader(), self.load_options.request
        job = self._job()
        subject = hub_subject(job, reader)
        unmeasured(subject, self.goal, self.machine, request).check()
        texts = ReadTexts(tuple(shipped(CALIBRATION)), f"mixcli-{CALIBRATION}")
        there = TextReader(subject, reader.path)
        found = read_texts(subject, there, texts, self.imatrix, LoadOptions(PlanRequest()))
        shards = counted(len(job.shards), "shard")
        console.note(
            f"{shards}, {format_bytes(sum(one.size for one in job.shards))}, are read twice: to measure, and to write"
        )
        with console.progress(f"measuring {shards}") as bar:
            job, file = fitted_job(job, subject, found, self.goal, self.machine, request, bar)
        console.note(
            f"{subject.name}, {self.goal.words}, context {file.row.n_ctx:,}: {format_bytes(file.n_bytes)}; "
            "compare it with other files: mixcli compare"
        )
        with console.progress(f"pulling {job.about.name}:{job.type}", unit="bytes") as bar:
            return job.carry_out(bar.update)

    def _reader(self) -> "StoredModel":
        return largest_installed(self.model, self.load_options, "--fit")

    def _job(self) -> "StreamJob":
        """Return the pull of the checkpoint before anything is chosen."""
        from mixcli.planning.machines import target_of
        from mixcli.pull.pull import PullRequest, pull
        from mixcli.pull.safetensors_pull import StreamJob

        target = target_of(self.load_options, measure=False)
        with console.progress(f"pulling {self.model}") as bar:
            job = pull(PullRequest(self.model, AS_IT_IS, self.name, self.keep_source), target, bar.update)
        if not isinstance(job, StreamJob):
            raise UsageError(
                f"{self.model} is not a repository of safetensors, or is installed as BF16; use: mixcli tailor {self.model}"
            )
        return job


def _checked(model: str | None, imatrix: str | None) -> Path | None:
    """Return the importance matrix that a person gives; UsageError for options that do not go together."""
    from mixcli.pull.pull import is_made_here
    from mixcli.store.catalog import catalog

    said = given(click.get_current_context())
    if needless := sorted(said & {"--quant", "--prefer", "--min-tps", "--offline", "--repair"}):
        raise UsageError(f"--fit chooses every type by measuring; remove {needless[0]}")
    if model is None:
        raise UsageError("--fit needs a MODEL, such as mixtral or org/repo")
    if is_made_here(model):
        name = model.partition(":")[0]
        first = f"mixcli pull {name}:{AS_IT_IS} && " if name in catalog() else ""
        made = f"{name}:{AS_IT_IS}" if first else as_argument(model)
        raise UsageError(
            f"--fit is for models of the Hub, and {model} is made on this machine; use: {first}mixcli tailor {made}"
        )
    if imatrix in (None, AUTO):
        return None
    path = Path(str(imatrix)).absolute()
    if not path.is_file():
        raise UsageError(not_a_file(str(imatrix)))
    return path
