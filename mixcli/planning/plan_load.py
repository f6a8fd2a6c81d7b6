"""Choose the placement of a model: the measured best, else the plan, with a smaller fallback."""

from collections.abc import Mapping
from dataclasses import replace

from mixcli.host.protocol.host_spec import LoadPlan
from mixcli.planning.draft import with_draft
from mixcli.planning.load_options import LoadOptions
from mixcli.planning.machines import limited, machine_of, note_unused_cards
from mixcli.planning.offers import in_a_load, plan_or_offer
from mixcli.planning.other_family import with_measured_buffers
from mixcli.planning.tuning_cache import tuned
from mixcli.planning.workers import plan_with_workers, without_held
from mixcli.store.headers import header_of, shape_of
from mixcli.store.preflight import check_gguf, family_note
from mixcli.store.store import StoredModel
from mixcli.system.wsl import slow_drive_note
from profiles.drafting import step_costs
from profiles.layout import layout_of
from profiles.ledger import accounts, expectation, needs_of
from profiles.machine import Machine
from profiles.placement import Placement
from profiles.planner import Plan, plan_if_it_fits
from profiles.shape import ModelShape
from profiles.speed import estimate

SMALLER = 0.9  # of every budget, for the plan that is tried when memory runs out anyway


def plan_load(
    stored: StoredModel, load_options: LoadOptions, limits: Mapping[str, int] | None = None
) -> LoadPlan:
    """Check the file before it is loaded, and plan it for its machine; its `reasons` are for the caller to print.

    `limits` are the bytes by device ("host", "CUDA0") that it may take at most, where other models have their part of what is free; a worker that they use entirely is not contacted.
    """
    if limits is not None:
        load_options = without_held(load_options, limits)
    header = check_gguf(stored.path)
    shape = shape_of(header)
    note_unused_cards(load_options)
    disk_of = stored.path if load_options.request.from_disk else None
    machine = machine_of(
        load_options.profile, load_options.vram, load_options.ram, load_options.workers, disk_of, [shape]
    )
    if limits is not None:
        machine = limited(machine, limits)
    request, workers = load_options.request, load_options.workers
    shape = with_measured_buffers(shape, header, stored.label, machine, request, workers)
    order = _tuned(stored, shape, machine, load_options)
    if order is None:
        found, machine = plan_with_workers(
            machine,
            lambda one: plan_or_offer(stored.label, shape, one, request, load_options, in_a_load),
            request.purpose,
        )
        order = _order(found, found.placement.workers)
    if load_options.draft is not None:
        order = with_draft(order, stored, shape, machine, load_options)
    notes = (*family_note(header), *slow_drive_note(stored.path))
    order = replace(order, reasons=(*notes, *order.reasons))
    order = _with_step_costs(order, shape, machine)
    if order.draft is not None:
        return order
    less = replace(
        machine,
        bytes_free=int(machine.bytes_free * SMALLER),
        gpus=tuple(replace(gpu, bytes_free=int(gpu.bytes_free * SMALLER)) for gpu in machine.gpus),
    )
    smaller = plan_if_it_fits(shape, less, load_options.request)
    if smaller is None:
        return order
    other = _order(smaller, order.placement.workers)
    return order if other.placement == order.placement else replace(order, smaller=other)


def estimated_decode(stored: StoredModel, load_options: LoadOptions, placement: Placement) -> float:
    """Return the tokens per second that a placement should decode on the machine of a load."""
    shape = shape_of(header_of(stored.parts))
    machine = machine_of(load_options.profile, load_options.vram, load_options.ram, load_options.workers)
    return estimate(shape, machine, placement, layout_of(shape, placement, machine)).decode


def _with_step_costs(order: LoadPlan, shape: ModelShape, machine: Machine) -> LoadPlan:
    """Return a plan with what steps of several tokens cost, where drafts may pay: a model that computes on a GPU."""
    placement = order.placement
    if not placement.n_gpu_layers:
        return order
    costs = step_costs(shape, machine, placement, layout_of(shape, placement, machine))
    return replace(order, step_costs=costs)


def _order(found: Plan, workers: tuple[str, ...]) -> LoadPlan:
    placement = replace(found.placement, workers=workers)
    return LoadPlan(placement, expectation(found.ledger), reasons=found.reasons, needs=needs_of(found.ledger))


def _tuned(
    stored: StoredModel, shape: ModelShape, machine: Machine, load_options: LoadOptions
) -> LoadPlan | None:
    """Return what `mixcli tune` found for these options, when it still fits."""
    placement = tuned(stored.path, shape, machine, load_options.request)
    if placement is None:
        return None
    ledger = accounts(shape, machine, placement, layout_of(shape, placement, machine))
    placement = replace(placement, workers=load_options.workers)
    return LoadPlan(placement, expectation(ledger), needs=needs_of(ledger))
