"""The plan of a pull: what it costs, shown before it starts, and the work to do."""

import os
import shutil
from collections.abc import Collection, Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Protocol

from mixcli.errors import DoesNotFit
from mixcli.pull.quant_choice import TypeRow, choice_data, how_it_runs, rows_of
from mixcli.store.about import About
from mixcli.store.hashing import Report
from mixcli.store.store import StoredModel
from mixcli.system.formatting import format_bytes
from profiles.quant_choice import FileChoice


@dataclass(frozen=True)
class FileCost:
    """One file of a pull: its bytes, and how many of them are here already."""

    name: str
    size: int
    here: int


@dataclass(frozen=True)
class PullPlan:
    """What a pull means, for a person and for --dry-run --json; sizes in bytes.

    `download` is what must be fetched, `disk` what the disks must have free at the worst moment, `fit` says in words whether the
    model will run here and how fast, `types` all types with what they would do here, `seconds` about how long quantizing takes, 0 where nothing
    is quantized. `chosen_by` is how the type was chosen, None if the user named it.
    """

    label: str
    description: str
    license: str
    origin: str
    files: tuple[FileCost, ...]
    size: int
    download: int
    disk: int
    fit: str
    fits: bool
    notes: tuple[str, ...] = ()
    types: tuple[TypeRow, ...] = ()
    seconds: float = 0.0
    chosen_by: FileChoice | None = None

    @classmethod
    def of(
        cls,
        about: About,
        file_type: str,
        planned: FileChoice,
        *,
        origin: str,
        size: int,
        files: tuple[FileCost, ...] = (),
        download: int = 0,
        disk: int,
        notes: tuple[str, ...] = (),
        seconds: float = 0.0,
        named: bool,
        offered: Collection[str] | None = None,
    ) -> "PullPlan":
        """Return the plan of a model in the type that was chosen or `named` among all that were planned; `offered` are those that can be had."""
        row = planned.row(file_type)
        rows = [one for one in planned.rows if offered is None or one.type in offered]
        return cls(
            f"{about.name}:{file_type}",
            about.description,
            about.license.words,
            origin,
            files,
            size,
            download,
            disk,
            how_it_runs(row, rows),
            row.plan is not None,
            notes,
            rows_of(planned, file_type, offered, named=named),
            seconds,
            None if named else planned,
        )

    def to_data(self, profile: str | None) -> dict[str, object]:
        """Return it as plain data; the keys about the choice are those of a plan."""
        skipped = {"label", "types", "chosen_by"}
        costs = {item.name: getattr(self, item.name) for item in fields(self) if item.name not in skipped}
        choice = choice_data(self.label, self.chosen_by, self.types, profile)
        return {**choice, **costs, "files": [asdict(file) for file in self.files]}


class PullJob(Protocol):
    """A planned pull: `summary` describes it, `carry_out` does it and returns the model."""

    @property
    def summary(self) -> PullPlan: ...

    @property
    def needs_repair(self) -> bool:
        """Return whether the file is of an old kind that must be rewritten before it can be loaded."""

    def carry_out(self, report: Report) -> StoredModel: ...


def check_disk(needs: Sequence[tuple[Path, int]]) -> None:
    """Refuse what cannot fit: `needs` are folders (they need not exist yet) and the bytes that will be written below them.

    Raises DoesNotFit with need and have.
    """
    by_disk: dict[int, tuple[Path, int]] = {}
    for folder, n_bytes in needs:
        there = next(path for path in (folder, *folder.parents) if path.exists())
        device = os.stat(there).st_dev  # noqa: PTH116
        first, sum_so_far = by_disk.get(device, (there, 0))
        by_disk[device] = (first, sum_so_far + n_bytes)
    for folder, n_bytes in by_disk.values():
        if (free := shutil.disk_usage(folder).free) < n_bytes:
            raise DoesNotFit(
                f"this needs {format_bytes(n_bytes)} on the disk of {folder}, but {format_bytes(free)} are free; "
                "free some space, choose a smaller quant, or set HF_HOME and MIXCLI_HOME to another disk"
            )
