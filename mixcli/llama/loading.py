"""Load a model as planned, compare its memory with the ledger, and retry once with the next smaller plan."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from mixcli.errors import DoesNotFit
from mixcli.llama.buffers import TOLERANCE, buffers_in, compare, unpinned_in
from mixcli.llama.context import Context
from mixcli.llama.model import Model
from mixcli.llama.native import LOG
from mixcli.llama.selftest import checked
from mixcli.llama.worker_memory import differences, free_memory
from mixcli.system.measurements import Comparison, Expected
from profiles.placement import Placement

MIN_UNPINNED = 256 << 20  # bytes of weights that are copied to a GPU for long prompts


@dataclass
class Loaded:
    """A model with its context, the placement that it really has, how that compares, and notes for a person.

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
    free = free_memory(placement.workers)
    model = Model.load(path, placement, on_progress)
    log = LOG.lines()
    try:
        context = make_context(model, placement)
    except BaseException:
        model.close()
        raise
    log += LOG.lines()
    gpus = [device for device in expected if device != "host"]
    found = compare(expected, buffers_in(log, gpus))
    notes = [one for one in (note, unpinned_note(placement, gpus, log)) if one]
    notes += [
        f"{one.device} took {one.real / 2**20:,.0f} MiB where {one.planned / 2**20:,.0f} MiB were planned"
        for one in found
        if one.off > TOLERANCE
    ]
    notes += differences(expected, free, free_memory(placement.workers))
    return Loaded(model, context, placement, found, notes)


def unpinned_note(placement: Placement, gpus: Sequence[str], log: Sequence[str]) -> str:
    """Return a sentence where the driver refused to pin host memory: llama.cpp then takes ordinary memory silently; else nothing."""
    if placement.load_mode != "none" or not any(gpu.startswith("CUDA") for gpu in gpus):
        return ""
    n_bytes = unpinned_in(log)
    if n_bytes < MIN_UNPINNED:
        return ""
    return (
        f"the driver did not pin {n_bytes / 2**30:.1f} GiB of host memory, so long prompts are processed more slowly than planned "
        "(decode is not affected); `mixcli tune` finds the fastest placement, or use a quant that fits on the GPU"
    )


__all__ = ["Expected", "Loaded", "load", "unpinned_note"]
