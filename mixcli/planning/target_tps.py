"""tune --target-tps: find the largest context and the best file type that still decode at a given speed.

Contexts, and file types that are in the store, are measured. Others are estimated: the planner's figure, held to what the installed model
measured against its own.
"""

from collections.abc import Callable, Iterator
from dataclasses import replace

from mixcli.errors import ModelDied
from mixcli.planning.report import Subject
from mixcli.planning.tune import Measurement, measure
from mixcli.pull.quant_choice import shapes_of_types
from mixcli.store.headers import header_of, shape_of
from mixcli.store.store import StoredModel, find, models
from profiles.errors import DoesNotFit
from profiles.machine import Machine
from profiles.planner import Plan, plan
from profiles.quality import BITS
from profiles.quant_choice import choose, pick
from profiles.request import PlanRequest, Rule

CONTEXTS = (65536, 32768, 16384, 8192, 4096, 2048, 1024)
HOPELESS = 0.8  # of the target: what is estimated below that is not measured

Report = Callable[[float, float, str], None]


def reaching(
    subject: Subject, machine: Machine, request: PlanRequest, target: float, base: Measurement, report: Report
) -> list[Measurement]:
    """Return what still writes `target` tokens per second: the largest context, then the best file types in the store and of all; or nothing.

    `base` is the best placement that was measured. Raises ModelDied only when everything that is measured dies.
    """
    own = plan(subject.shape, machine, replace(request, n_ctx=base.placement.n_ctx))
    ratio = base.decode / own.estimate.decode
    found = list(_largest_context(subject, machine, request, target, ratio, report))
    at_context = replace(request, n_ctx=base.placement.n_ctx)
    best = next(_best_stored(subject, machine, at_context, target, ratio, report), None)
    if best is not None:
        found.append(best)
    estimated = next(_best_estimated(subject, machine, at_context, target, ratio), None)
    if estimated is not None:
        found.append(estimated)
    return found


def _largest_context(
    subject: Subject, machine: Machine, request: PlanRequest, target: float, ratio: float, report: Report
) -> Iterator[Measurement]:
    """Measure the usual contexts from the largest down, those that the estimate calls worth it, until one reaches the target."""
    worth = []
    for n_ctx in CONTEXTS:
        if request.least_ctx <= n_ctx <= (subject.shape.n_ctx_train or n_ctx):
            one = _planned(subject, machine, replace(request, n_ctx=n_ctx))
            if one is not None and one.estimate.decode * ratio >= HOPELESS * target:
                worth.append((n_ctx, one))
    for number, (n_ctx, one) in enumerate(worth):
        report(number, len(worth), f"--ctx {n_ctx}")
        measured = _measured(subject, machine, f"--ctx {n_ctx}", one)
        if measured is not None and measured.decode >= target:
            yield measured
            return


def _best_stored(
    subject: Subject, machine: Machine, request: PlanRequest, target: float, ratio: float, report: Report
) -> Iterator[Measurement]:
    """Measure the model's other file types that are in the store, the largest first."""
    others = sorted(_siblings(subject), key=lambda one: -one[1].shape.bytes_weights)
    for number, (_, other) in enumerate(others):
        one = _planned(other, machine, request)
        if one is None or one.estimate.decode * ratio < HOPELESS * target:
            continue
        report(number, len(others), other.label)
        measured = _measured(other, machine, other.label, one)
        if measured is not None and measured.decode >= target:
            yield measured


def _best_estimated(
    subject: Subject, machine: Machine, request: PlanRequest, target: float, ratio: float
) -> Iterator[Measurement]:
    """Estimate the file types that are not in the store, the best first."""
    have = {stored.manifest.type for stored, _ in _siblings(subject) if stored.manifest}
    here = subject.shape.bytes_weights
    shapes = shapes_of_types(subject.shape, dict.fromkeys(name for name in BITS if name not in have))
    others = {name: shape for name, shape in shapes.items() if abs(shape.bytes_weights - here) > here // 100}
    planned = choose(others, machine, request)
    fast = [row for row in planned.rows if row.plan and row.plan.estimate.decode * ratio >= target]
    row, _ = pick(fast, Rule("quality", min((row.decode for row in fast), default=None)))
    if row is not None and row.plan is not None:
        rates = row.plan.estimate
        yield Measurement(
            f"about {row.type}",
            row.plan.placement,
            rates.prefill * ratio,
            rates.decode * ratio,
            measured=False,
        )


def _siblings(subject: Subject) -> Iterator[tuple[StoredModel, Subject]]:
    """Yield the same model's file types in the store, this one too."""
    if subject.path is None:
        return
    own = find(str(subject.path)) if subject.label.endswith(".gguf") else find(subject.label)
    for stored in models():
        if own.manifest and stored.manifest and stored.manifest.name == own.manifest.name:
            shape = shape_of(header_of(list(stored.parts)))
            yield stored, Subject(stored.label, shape, stored.path)


def _planned(subject: Subject, machine: Machine, request: PlanRequest) -> Plan | None:
    try:
        return plan(subject.shape, machine, request)
    except DoesNotFit:
        return None


def _measured(subject: Subject, machine: Machine, what: str, one: Plan) -> Measurement | None:
    try:
        return measure(subject, machine, what, one.placement)
    except ModelDied:
        return None


__all__ = ["reaching"]
