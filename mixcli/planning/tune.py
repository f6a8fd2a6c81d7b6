"""mixcli tune: measure placements around the plan, prefill and decode separately, and keep the best."""

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace

from mixcli.errors import ModelDied
from mixcli.planning.report import Subject
from mixcli.planning.tuning_cache import TuningRow
from mixcli.planning.verify_plan import measured
from mixcli.system.formatting import counted
from profiles.errors import DoesNotFit
from profiles.layout import layout_of
from profiles.ledger import accounts, shortage
from profiles.machine import Machine
from profiles.placement import Placement
from profiles.planner import plan
from profiles.request import PlanRequest, Purpose, work_seconds

PROMPT, TOKENS = 256, 24  # what one measurement computes
UBATCHES = (128, 256, 512, 1024, 2048)


@dataclass(frozen=True)
class Measurement:
    """One placement, what is different about it, and its tokens per second; `measured` is False for an estimate."""

    what: str
    placement: Placement
    prefill: float
    decode: float
    measured: bool = True

    def seconds(self, purpose: Purpose) -> float:
        """Return the time for one piece of work of that purpose."""
        return work_seconds(purpose, self.prefill, self.decode)

    def row(self) -> TuningRow:
        """Return what is remembered and shown of it."""
        return TuningRow(self.what, round(self.prefill, 2), round(self.decode, 2), self.measured)


def candidates(subject: Subject, machine: Machine, request: PlanRequest) -> Iterator[tuple[str, Placement]]:
    """Yield the plan, then placements that differ from it in one thing each; all fit."""
    base = plan(subject.shape, machine, request).placement
    yield "the plan", base
    seen = {base}
    for what, placement in (
        *_with_other_experts(subject, machine, request, base),
        *_repacked(base),
        *_with_other_threads(machine, base),
        *_with_other_batches(subject, machine, request, base),
        *_with_smaller_cache(request, base),
    ):
        if placement in seen:
            continue
        seen.add(placement)
        ledger = accounts(subject.shape, machine, placement, layout_of(subject.shape, placement, machine))
        if shortage(ledger, machine) is None:
            yield what, placement


def _repacked(base: Placement) -> Iterator[tuple[str, Placement]]:
    yield f"repacking {'off' if base.repack else 'on'}", replace(base, repack=not base.repack)


def _with_other_experts(
    subject: Subject, machine: Machine, request: PlanRequest, base: Placement
) -> Iterator[tuple[str, Placement]]:
    """Yield one and two layers of experts fewer on the GPUs, as many as fit, and none."""
    if not machine.gpus:
        return
    layer = max(layer.experts for layer in subject.shape.each_layer())
    quick = tuple(replace(gpu, bandwidth=1e4, link=1e3, tflops=1e3) for gpu in machine.gpus)
    others = [replace(machine, gpus=quick)]
    on_gpus = layers_on_gpus(subject, machine, base)
    for fewer in (1, 2, on_gpus):
        # what was left free beside the plan is no more than a layer, so that much less makes so many layers fewer
        less = tuple(replace(gpu, bytes_free=max(0, gpu.bytes_free - fewer * layer)) for gpu in machine.gpus)
        if 0 < fewer <= on_gpus:
            others.append(replace(machine, gpus=less))
    load_options = replace(request, n_ctx=base.n_ctx, kv=base.type_k, n_ubatch=base.n_ubatch)
    for other in others:
        try:
            placement = plan(subject.shape, other, load_options).placement
        except DoesNotFit:
            continue
        n = layers_on_gpus(subject, machine, placement)
        yield f"{counted(n, 'layer')} of experts on GPUs", placement


def layers_on_gpus(subject: Subject, machine: Machine, placement: Placement) -> int:
    """Count the layers that have some of their experts on a GPU."""
    layout = layout_of(subject.shape, placement, machine)
    layers = zip(subject.shape.each_layer(), layout.experts, strict=True)
    return sum(set(at) != {layout.host} for layer, at in layers if layer.experts)


def _with_other_threads(machine: Machine, base: Placement) -> Iterator[tuple[str, Placement]]:
    for n in (max(1, machine.n_cores // 2), max(1, machine.n_cores - 1), 2 * machine.n_cores):
        yield counted(n, "thread"), replace(base, n_threads=n, n_threads_batch=n)


def _with_other_batches(
    subject: Subject, machine: Machine, request: PlanRequest, base: Placement
) -> Iterator[tuple[str, Placement]]:
    for n_ubatch in UBATCHES if request.n_ubatch is None else ():
        try:
            other = plan(subject.shape, machine, replace(request, n_ctx=base.n_ctx, n_ubatch=n_ubatch))
        except DoesNotFit:
            continue
        yield f"n_ubatch {n_ubatch}", other.placement


def _with_smaller_cache(request: PlanRequest, base: Placement) -> Iterator[tuple[str, Placement]]:
    if request.kv == "auto" and base.type_k == "f16":  # it costs quality, so only where that was allowed
        yield "KV cache q8_0", replace(base, type_k="q8_0", type_v="q8_0")


def sweep(
    subject: Subject,
    machine: Machine,
    request: PlanRequest,
    budget: float,
    report: Callable[[float, float, str], None],
) -> list[Measurement]:
    """Measure candidates until `budget` seconds are over, the plan always; best first for the request's purpose.

    A candidate that dies is left out. Raises ModelDied when the plan itself does.
    """
    todo = list(candidates(subject, machine, request))
    end = time.monotonic() + budget
    found: list[Measurement] = []
    for number, (what, placement) in enumerate(todo):
        if found and time.monotonic() > end:
            break
        report(number, len(todo), what)
        try:
            found.append(measure(subject, machine, what, placement))
        except ModelDied:
            if not number:
                raise
    return sorted(found, key=lambda one: one.seconds(request.purpose))


def measure(subject: Subject, machine: Machine, what: str, placement: Placement) -> Measurement:
    """Measure one placement in a process of its own; with the machine's workers."""
    prompt = min(PROMPT, placement.n_ctx // 2)
    answer = measured(subject, replace(placement, workers=machine.workers), {}, prompt=prompt, tokens=TOKENS)
    return Measurement(what, placement, answer.prefill, answer.decode)
