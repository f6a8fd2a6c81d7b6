"""The workers of a plan: only those that it uses are connected, since a worker serves one model at a time."""

from collections.abc import Callable, Collection, Mapping
from contextlib import suppress
from dataclasses import replace

from mixcli.planning.load_options import LoadOptions
from mixcli.system.device_facts import worker_of
from profiles.errors import DoesNotFit
from profiles.machine import Machine
from profiles.planner import Plan
from profiles.request import Purpose


def plan_with_workers(
    machine: Machine, plan_on: Callable[[Machine], Plan], purpose: Purpose = "chat"
) -> tuple[Plan, Machine]:
    """Plan on a machine, and again without the workers that the plan does not use or that slow it down; return the plan and its machine.

    The placement names the workers that are used, the reasons those that are not. Raises what `plan_on` raises for the whole machine.
    """
    given = machine.workers
    found = plan_on(machine)
    while machine.workers:
        fewer = _with_fewer(found, machine, plan_on, purpose)
        if fewer is None:
            break
        found, machine = fewer
    unused = (worker for worker in given if worker not in machine.workers)
    why = (
        f"the worker {one} is not used: the plan is faster without it, or nothing fits there"
        for one in unused
    )
    placement = replace(found.placement, workers=machine.workers)
    return replace(found, placement=placement, reasons=(*found.reasons, *why)), machine


def _with_fewer(
    found: Plan, machine: Machine, plan_on: Callable[[Machine], Plan], purpose: Purpose
) -> tuple[Plan, Machine] | None:
    """Return the plan without the workers that are not used, or else without one of several that slows it down; None where each one helps.

    The planner packs workers as if all of them were equally far.
    """
    needed = {worker_of(account.device) for account in found.ledger if account.need}
    used = tuple(worker for worker in machine.workers if worker in needed)
    if used != machine.workers:
        machine = with_only(machine, used)
        return plan_on(machine), machine
    for far in (
        sorted(used, key=lambda worker: _round_trip(machine, worker), reverse=True) if used[1:] else ()
    ):
        nearer = with_only(machine, [worker for worker in used if worker != far])
        with suppress(DoesNotFit):
            other = plan_on(nearer)
            is_whole = other.n_ctx >= found.n_ctx and other.placement.type_k == found.placement.type_k
            if is_whole and other.seconds(purpose) < found.seconds(purpose):
                return other, nearer
    return None


def _round_trip(machine: Machine, worker: str) -> float:
    return max(gpu.round_trip for gpu in machine.gpus if worker_of(gpu.name) == worker)


def with_only(machine: Machine, workers: Collection[str]) -> Machine:
    """Return a machine with these of its workers."""
    gone = {worker for worker in machine.workers if worker not in workers}
    gpus = tuple(gpu for gpu in machine.gpus if worker_of(gpu.name) not in gone)
    return replace(
        machine, gpus=gpus, workers=tuple(worker for worker in machine.workers if worker in workers)
    )


def without_held(load_options: LoadOptions, left: Mapping[str, int]) -> LoadOptions:
    """Return the options without the workers of whose devices nothing is left: they serve another model and would not answer."""
    held = {worker_of(device) for device, n_bytes in left.items() if n_bytes <= 0}
    return replace(load_options, workers=tuple(one for one in load_options.workers if one not in held))


__all__ = ["plan_with_workers", "with_only", "without_held"]
