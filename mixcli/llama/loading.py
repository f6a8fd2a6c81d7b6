"""Load a model as planned, compare its memory with the ledger, and retry once with the next smaller plan."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from mixcli.errors import DoesNotFit
from mixcli.llama.buffers import TOLERANCE, buffers_in, compare
from mixcli.llama.context import Context
from mixcli.llama.model import Model
from mixcli.llama.native import LOG
from mixcli.llama.selftest import checked
from mixcli.system.measurements import Comparison, Expected
from profiles.placement import Placement


@dataclass
class Loaded:
    """A model with its context, the placement that it really has, how that compares, and what a person should hear.

    `is_smaller`: the next smaller plan was loaded instead.
    """

    model: Model
    context: Context
    placement: Placement
    comparisons: list[Comparison]
    notes: list[str]
    is_smaller: bool = False


def load(
    path: Path,
    placement: Placement,
    expected: Expected,
    smaller: tuple[Placement, Expected] | None,
    on_progress: Callable[[float], bool] | None = None,
    make_context: Callable[[Model, Placement], Context] = Context,
) -> Loaded:
    """Load and compare; `expected` is what the plan says of each device (empty: nothing to compare).

    Raises what Model.load and Context raise; DoesNotFit only when there is no smaller plan or that fails too.
    """
    try:
        return _load(path, placement, expected, on_progress, make_context)
    except DoesNotFit as error:
        if smaller is None:
            raise
        loaded = _load(path, *smaller, on_progress, make_context)
        loaded.is_smaller = True
        loaded.notes.append(f"{error}; loaded the next smaller plan instead")
        return loaded


def _load(
    path: Path,
    wanted: Placement,
    expected: Expected,
    on_progress: Callable[[float], bool] | None,
    make_context: Callable[[Model, Placement], Context],
) -> Loaded:
    placement, note = checked(wanted)
    model = Model.load(path, placement, on_progress)
    log = LOG.lines()
    try:
        context = make_context(model, placement)
    except BaseException:
        model.close()
        raise
    log += LOG.lines()
    found = compare(expected, buffers_in(log, [device for device in expected if device != "host"]))
    notes = [note] if note else []
    notes += [
        f"{one.device} took {one.real / 2**20:,.0f} MiB where {one.planned / 2**20:,.0f} MiB were planned"
        for one in found
        if one.off > TOLERANCE
    ]
    return Loaded(model, context, placement, found, notes)


__all__ = ["Expected", "Loaded", "load"]
