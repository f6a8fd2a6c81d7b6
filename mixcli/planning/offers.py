"""What is offered in place of a model that is not installed, or that does not fit: the file that the choice would take, its size and its rate.

Nothing is asked of the network and nothing is measured: the dimensions of the catalog's models and the processor's known rates are enough.
"""

from collections.abc import Callable
from dataclasses import replace

from mixcli.errors import MixcliError, NotInstalled, UsageError
from mixcli.planning.load_options import LoadOptions
from mixcli.planning.machines import target_of
from mixcli.pull.quant_choice import favorite, in_short, offer, pull_command, shapes_of_types, usual_types
from mixcli.store.reference import Reference
from mixcli.store.store import models
from mixcli.system.formatting import format_bytes
from profiles.machine import Machine
from profiles.planner import Plan, plan
from profiles.quality import BITS
from profiles.quant_choice import row_of
from profiles.request import PlanRequest
from profiles.shape import ModelShape


def with_offer(missing: NotInstalled, load_options: LoadOptions) -> NotInstalled:
    """Return the same error with what `mixcli pull` would download for these options; as it is where that is not known.

    Raises what planning raises for options that no model can meet, such as an unknown profile.
    """
    reference = None if missing.name is None else Reference.parse(missing.name)
    if reference is not None and not usual_types(reference.name):
        return missing  # a repository of the Hub, or the demo
    try:
        target = target_of(load_options, measure=False)
    except UsageError:
        raise
    except MixcliError:  # a worker that does not answer, a library that does not start
        return missing
    if reference is None:
        name, planned = favorite(target)
        small = "" if planned is None else "; `mixcli pull demo` makes a small one offline"
        return NotInstalled(
            missing.what, offer(name, planned, target, "") + small, None, "" if planned else name
        )
    planned = target.choose(usual_types(reference.name))
    named = next((row for row in planned.rows if row.type == reference.type), None)
    if reference.type and (named is None or named.plan):
        pull = pull_command(str(reference), target)
        step = f"{pull} downloads {in_short(named, target.where)}" if named else f"run {pull}"
        return NotInstalled(missing.what, step, missing.name)
    what, least = missing.what, planned.rows[-1]
    if planned.chosen is None:
        what = f"{what} and no quant of it fits {target.where}: the smallest, {least.type}, is {format_bytes(least.size)}"
        other, its_types = favorite(target)
        return NotInstalled(what, offer(other, its_types, target), missing.name, other)
    if named is not None:
        what = f"{what} and does not fit {target.where} ({format_bytes(named.size)})"
    return NotInstalled(what, offer(reference.name, planned, target), missing.name, reference.name)


Naming = Callable[[str, str], str]  # a label and a file type: how a person gets the model in that type


def plan_or_offer(
    label: str,
    shape: ModelShape,
    machine: Machine,
    request: PlanRequest,
    load_options: LoadOptions,
    naming: Naming,
) -> Plan:
    """Return a plan; what it raises where the model does not fit names the largest type of it that does, else another model."""

    def instead() -> str:
        target = replace(
            target_of(load_options, measure=False), machine_for=lambda _: machine, request=request
        )
        name = label.rpartition(":")[0]
        shapes = usual_types(name) or shapes_of_types(shape, dict.fromkeys(BITS))
        smaller = {key: one for key, one in shapes.items() if one.bytes_weights < shape.bytes_weights}
        for file_type, one in sorted(smaller.items(), key=lambda pair: -pair[1].bytes_weights):
            row = row_of(file_type, one, machine, request)
            if row.plan:
                return f"{naming(label, file_type)}, the largest quant that fits ({format_bytes(row.size)})"
        other, its_types = favorite(target)
        best = its_types.chosen if its_types else None
        if best is None or other == name:
            return "`mixcli pull demo`, which runs anywhere" if other != name else ""
        return f"{naming(f'{other}:{best.type}', best.type)}, a model that fits ({format_bytes(best.size)})"

    return plan(shape, machine, request, instead)


def in_a_plan(label: str, file_type: str) -> str:
    """Return what `mixcli plan` takes for a model in another type."""
    name = label.rpartition(":")[0]
    return f"{name}:{file_type}" if usual_types(name) else f"--quant {file_type}"


def in_a_load(label: str, file_type: str) -> str:
    """Return how a model in another type is loaded: an installed one by its name, one of the catalog by a pull."""
    name = label.rpartition(":")[0]
    if any(model.label == f"{name}:{file_type}" for model in models()):
        return f"-m {name}:{file_type}"
    if usual_types(name) or "/" in name.strip("./"):
        return f"`mixcli pull {name}:{file_type}`"
    return f"a file of it in {file_type}"


__all__ = ["in_a_load", "in_a_plan", "plan_or_offer", "with_offer"]
