"""plan(): place a model on a machine. Pure: numbers in, a Plan out, or a refusal with its reasons.

The order of sacrifice: attention, caches and the output layer stay on the GPUs, experts fill what is left of them, the rest of the
experts lives in host memory. Only when attention itself does not fit do whole layers go back to the host.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import NamedTuple

from profiles.layout import Layout
from profiles.ledger import Account, accounts, shortage
from profiles.machine import Gpu, Machine
from profiles.memory import GIB, kv_types_of
from profiles.placement import Placement
from profiles.refusal import refuse, refuse_context, refuse_kv
from profiles.request import PlanRequest, Purpose, work_of, work_seconds
from profiles.search import SMALL_UBATCHES, quickest
from profiles.shape import ModelShape
from profiles.speed import Estimate, estimate, work_rates

DEFAULT_CTX = 8192
MIN_CTX = 1024
PINNED_SHARE = 0.8  # of free memory that may be pinned; more makes the whole system slow


@dataclass(frozen=True)
class Plan:
    """A placement that fits, its ledger (GPUs, then the host), its estimated speed, and the reasons as sentences."""

    placement: Placement
    layout: Layout
    ledger: tuple[Account, ...]
    estimate: Estimate
    reasons: tuple[str, ...]

    @property
    def n_ctx(self) -> int:
        return self.placement.n_ctx

    def seconds(self, purpose: Purpose) -> float:
        """Return the estimated time for one piece of work of that purpose; smaller is better."""
        decode = self.estimate.together if work_of(purpose).at_once > 1 else self.estimate.decode
        return work_seconds(purpose, self.estimate.prefill, decode)


def plan(
    shape: ModelShape, machine: Machine, request: PlanRequest, instead: Callable[[], str] | None = None
) -> Plan:
    """Return the fastest plan that fits; DoesNotFit with need, have and ways out, BadRequest for a cache that the model cannot have.

    `instead` is called for a way out that is another file, in words; without it the largest of the usual types that fits is named.
    What was asked for is kept or refused. Without a context the model's own is taken, at most the machine's preference, halved until
    it fits; a cache in 8 bits and small batches are tried before that.
    """
    found = plan_if_it_fits(shape, machine, request)
    if found is not None:
        return found
    *_, (tightest, _) = _settings(shape, machine, request)

    def fits(other: ModelShape, wanted: PlanRequest) -> bool:
        wanted = replace(wanted, n_ubatch=wanted.n_ubatch or min(SMALL_UBATCHES))  # what needs least
        return any(
            _fastest(other, machine, wanted, placement) for placement, _ in _settings(other, machine, wanted)
        )

    raise refuse(shape, machine, request, tightest, fits, instead)


def plan_if_it_fits(shape: ModelShape, machine: Machine, request: PlanRequest) -> Plan | None:
    """Return what plan() returns, and None for a model that does not fit: no way out is worked out for it.

    Raises DoesNotFit for a context or work beyond the model's own context, BadRequest for a cache that it cannot have, or work beyond the context asked for.
    """
    if refusal := refuse_context(request, shape.n_ctx_train):
        raise refusal
    if request.kv not in (None, "auto", *kv_types_of(shape)):
        raise refuse_kv(request.kv, shape)
    for placement, given_up in _settings(shape, machine, request):
        found = _fastest(shape, machine, request, placement)
        if found is not None:
            return replace(found, reasons=(*given_up, *found.reasons))
    return None


def _settings(
    shape: ModelShape, machine: Machine, request: PlanRequest
) -> Iterator[tuple[Placement, tuple[str, ...]]]:
    """Yield contexts and cache types in the order of preference, each with what it gives up."""
    usual = max(machine.n_ctx, request.least_ctx)
    n_ctx = wanted = request.n_ctx or min(shape.n_ctx_train or usual, usual)
    least = max(MIN_CTX, request.least_ctx)
    asked = ("f16", "q8_0") if request.kv == "auto" else (request.kv,) if request.kv else machine.kv_types
    possible = kv_types_of(shape)
    kinds = [kind for kind in asked if kind in possible] or ([] if request.kv else ["f16"])
    threads = max(1, machine.n_cores)
    while True:
        for kind in kinds:
            given_up = []
            if n_ctx < wanted:
                given_up.append(f"context reduced from {wanted} to {n_ctx} tokens to fit")
            if kind != kinds[0]:
                given_up.append(f"KV cache reduced from {kinds[0]} to {kind} to fit")
            yield (
                Placement(
                    n_ctx=n_ctx,
                    n_seq_max=request.n_seq_max,
                    type_k=kind,
                    type_v=kind,
                    n_threads=threads,
                    n_threads_batch=threads,
                ),
                tuple(given_up),
            )
        if request.n_ctx is not None or n_ctx <= least:
            return
        n_ctx = max(n_ctx // 2, request.least_ctx)


def _fastest(shape: ModelShape, machine: Machine, request: PlanRequest, placement: Placement) -> Plan | None:
    """Return the fastest plan with that context and cache, over all sizes of a micro-batch; None when nothing fits."""

    def finish(placement: Placement, layout: Layout) -> tuple[float, _Fitted] | None:
        found = _fitted(shape, machine, request, placement, layout)
        if found is None:
            return None
        rates = work_rates(shape, machine, found.placement, request.purpose)
        return rates.seconds(shape, layout, found.missing), found

    found = quickest(shape, machine, request, placement, finish)
    if found is None:
        return None
    placement, layout, missing = found
    ledger = accounts(shape, machine, placement, layout)
    reached = estimate(shape, machine, placement, layout, missing)
    reasons = []
    if not request.n_ubatch and _is_small(shape, machine, placement, layout):
        reasons.append(
            f"n_ubatch reduced to {placement.n_ubatch}: larger ones do not fit, "
            "or leave too little memory for experts"
        )
    if missing:
        reasons.append(
            f"{missing / GIB:.1f} GiB of the experts do not fit in host memory and are read from disk for every token: "
            f"about {reached.disk_seconds:.2g} seconds more per token, at {1000 * machine.disk:.0f} MB/s of small random reads"
        )
    return Plan(placement, layout, ledger, reached, tuple(reasons))


def _is_small(shape: ModelShape, machine: Machine, placement: Placement, layout: Layout) -> bool:
    """Return whether the micro-batch is smaller than the usual ones for lack of memory; a processor may be faster with a small one."""
    usual = min(machine.ubatches)
    if placement.n_ubatch >= usual:
        return False
    if machine.gpus:
        return True
    return shortage(accounts(shape, machine, replace(placement, n_ubatch=usual), layout), machine) is not None


class _Fitted(NamedTuple):
    """A placement whose layout fits, and the bytes of experts that come from disk."""

    placement: Placement
    layout: Layout
    missing: int


def _fitted(
    shape: ModelShape, machine: Machine, request: PlanRequest, placement: Placement, layout: Layout
) -> _Fitted | None:
    """Return the whole placement of a layout, or None when a device has too little room."""
    placement = replace(
        placement,
        n_gpu_layers=layout.n_gpu_layers,
        tensor_split=layout.tensor_split(),
        tensor_overrides=layout.overrides(machine, shape),
    )
    *gpus, host = accounts(shape, machine, placement, layout, staging_apart=False)
    if any(account.left < 0 for account in gpus):
        return None
    if machine.unified and sum(account.need for account in (*gpus, host)) > machine.bytes_free:
        return None
    missing = max(0, -host.left)
    if missing:
        if not request.from_disk or missing > host.experts:
            return None
        return _Fitted(replace(placement, load_mode="mmap", repack=False), layout, missing)
    pinned = layout.n_gpu_layers and host.experts and host.need <= PINNED_SHARE * host.bytes_free
    return _Fitted(replace(placement, load_mode="none" if pinned else "mmap"), layout, 0)


__all__ = [
    "DEFAULT_CTX",
    "GIB",
    "MIN_CTX",
    "Gpu",
    "Machine",
    "Plan",
    "PlanRequest",
    "plan",
    "plan_if_it_fits",
]
