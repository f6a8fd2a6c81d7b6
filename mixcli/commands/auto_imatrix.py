"""The importance matrix of `mixcli pull --imatrix auto`: computed by a quant of the same model that is installed."""

import os
from pathlib import Path
from typing import TYPE_CHECKING

from mixcli.errors import UsageError
from mixcli.system.console import console
from mixcli.system.text import as_argument, not_a_file

if TYPE_CHECKING:
    from mixcli.insight.imatrix import ImatrixRequest
    from mixcli.planning.load_options import LoadOptions
    from mixcli.store.store import StoredModel

AUTO = "auto"
KEPT = 1 << 30  # bytes of matrices in the cache; those that were used longest ago are removed


def imatrix_file(said: str | None, model: str, load_options: "LoadOptions") -> Path | None:
    """Return the file that --imatrix names; for "auto" one that is computed now, or was before, by the largest installed quant of the model.

    Raises UsageError for a file that does not exist and where no quant is installed, and what loading one raises.
    """
    if said is None:
        return None
    if said != AUTO:
        path = Path(said).absolute()
        if not path.is_file():
            raise UsageError(not_a_file(said))
        return path
    from mixcli.insight.imatrix import compute
    from mixcli.system.trimming import trim

    stored = largest_installed(model, load_options, otherwise=", or pass a file of mixcli imatrix")
    target = place_of(stored, load_options)
    if target.exists():
        os.utime(target)
        console.note(f"using the importance matrix that {stored.label} computed before")
        return target
    with console.progress(f"computing the importance matrix with {stored.label}") as bar:
        report = compute(stored, _request(), load_options, target, bar)
    console.note(f"computed the importance matrix with {stored.label}, from {report.n_tokens:,} tokens")
    trim(target.parent.parent, "*/*.*", KEPT, target)
    return target


def place_of(stored: "StoredModel", load_options: "LoadOptions") -> Path:
    """Return the file of the cache for what a model computes: files of two models may have one name, and one model's file may change."""
    from mixcli.insight.imatrix import run_of
    from mixcli.system import paths

    run = run_of(stored, _request(), load_options)[:32]
    return (
        paths.private(paths.private(paths.cache_dir() / "imatrix") / run) / f"{stored.path.stem}.imatrix.gguf"
    )


def _request() -> "ImatrixRequest":
    from mixcli.insight.imatrix import ImatrixRequest
    from mixcli.insight.pieces import CALIBRATION, shipped

    return ImatrixRequest(tuple(shipped(CALIBRATION)), f"mixcli-{CALIBRATION}")


def largest_installed(
    model: str, load_options: "LoadOptions", what: str = "--imatrix auto", otherwise: str = ""
) -> "StoredModel":
    """Return the largest installed quant of a model, which computes in its place.

    Raises UsageError where none is installed, with the option that needs it and what else could be done, in words.
    """
    from mixcli.store.reference import Reference, is_path, usable_name
    from mixcli.store.store import models

    name = usable_name(Path(model).resolve().name.lower()) if is_path(model) else Reference.parse(model).name
    found = [one for one in models() if one.manifest and one.manifest.name == name]
    if not found:
        raise UsageError(
            f"{what} computes with an installed quant of {name}, and none is installed; "
            f"run {_first_pull(model, name, load_options)} first{otherwise}"
        )
    return max(found, key=lambda one: sum(part.stat().st_size for part in one.parts))


def _first_pull(model: str, name: str, load_options: "LoadOptions") -> str:
    """Return the command that installs a quant to compute with: the largest that fits of a model whose dimensions are known, else the one that suits.

    Raises DoesNotFit where none fits.
    """
    from mixcli.planning.machines import target_of
    from mixcli.pull.quant_choice import nothing_fits, pull_command, usual_types
    from mixcli.store.reference import is_path

    target = target_of(load_options, measure=False)
    if is_path(model):
        return pull_command(as_argument(model), target)
    if not (shapes := usual_types(name)):
        return pull_command(name, target)
    planned = target.choose(shapes)
    largest = next((row for row in planned.rows if row.plan), None)
    if largest is None:
        least = planned.rows[-1]
        raise nothing_fits(
            name, least.type, least.size, planned.machine, target, f"mixcli pull {name}:{least.type}"
        )
    return pull_command(f"{name}:{largest.type}", target)
