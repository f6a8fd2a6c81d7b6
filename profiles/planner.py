"""plan(): how a model should run on a machine. Pure: numbers in, a Plan out, or a refusal with its reasons.

The order of sacrifice: attention, caches and the output layer stay on the GPUs, experts fill what is left of them, the rest of the
experts lives in main memory. Only when attention itself does not fit do whole layers go back to the host.
"""

from collections.abc import Iterator
from dataclasses import dataclass, replace

from profiles.layout import Layout, on_host
from profiles.ledger import Account, accounts, compute_of
from profiles.machine import Gpu, Machine
from profiles.memory import GIB, bytes_kv_layer, cells
from profiles.packing import Fixed, fill
from profiles.placement import Placement
from profiles.refusal import refuse, refuse_long_context
from profiles.request import Request
from profiles.shape import ModelShape
from profiles.speed import Estimate, estimate

DEFAULT_CTX = 8192
MIN_CTX = 1024
SMALL_UBATCHES = (256, 128)  # taken only when nothing larger fits
PINNED_SHARE = 0.8  # of free memory that may be pinned; more makes the whole system slow


# tokens read and written that a purpose stands for
WORK = {"chat": (512, 256), "batch": (2048, 96)}


@dataclass(frozen=True)
class Plan:
    """A placement that fits, its ledger (GPUs, then the host), what it should reach, and why it is so in sentences."""

    placement: Placement
    layout: Layout
    ledger: tuple[Account, ...]
    estimate: Estimate
    reasons: tuple[str, ...]

    @property
    def n_ctx(self) -> int:
        return self.placement.n_ctx

    def seconds(self, purpose: str) -> float:
        """Give the estimated time for one piece of work of that purpose; smaller is better."""
        read, write = WORK[purpose]
        return read / self.estimate.prefill + write / self.estimate.decode


def plan(shape: ModelShape, machine: Machine, request: Request) -> Plan:
    """Give the fastest plan that fits; DoesNotFit with need, have and ways out.

    What was asked for is kept or refused. Without a context the model's own is taken, at most the machine's preference, halved until
    it fits; a cache in 8 bits and small batches are tried before that.
    """
    if request.n_ctx is not None and shape.n_ctx_train and request.n_ctx > shape.n_ctx_train:
        raise refuse_long_context(request.n_ctx, shape.n_ctx_train)
    tightest = None
    for placement, given_up in _settings(shape, machine, request):
        found = _fastest(shape, machine, request, placement)
        if found is not None:
            return replace(found, reasons=(*given_up, *found.reasons))
        tightest = placement
    assert tightest is not None

    def fits(other: ModelShape, wish: Request) -> bool:
        return any(
            _fastest(other, machine, wish, placement) for placement, _ in _settings(other, machine, wish)
        )

    raise refuse(shape, machine, request, tightest, fits)


def _settings(
    shape: ModelShape, machine: Machine, request: Request
) -> Iterator[tuple[Placement, tuple[str, ...]]]:
    """Give contexts and cache types in the order of preference, each with what it gives up."""
    n_ctx = wished = request.n_ctx or min(shape.n_ctx_train or machine.n_ctx, machine.n_ctx)
    kinds = ("f16", "q8_0") if request.kv == "auto" else (request.kv,) if request.kv else machine.kv_types
    threads = max(1, machine.n_cores)
    while True:
        for kind in kinds:
            given_up = []
            if n_ctx < wished:
                given_up.append(
                    f"the context is {n_ctx} instead of {wished} tokens, because more does not fit"
                )
            if kind != kinds[0]:
                given_up.append(f"the KV cache is {kind} instead of {kinds[0]}, because that does not fit")
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
        if request.n_ctx is not None or n_ctx <= MIN_CTX:
            return
        n_ctx //= 2


def _fastest(shape: ModelShape, machine: Machine, request: Request, placement: Placement) -> Plan | None:
    """Try the sizes of a micro-batch; of those that fit, the fastest for the purpose."""
    if request.n_ubatch:
        groups: tuple[tuple[int, ...], ...] = ((request.n_ubatch,),)
    elif machine.gpus:
        groups = (machine.ubatches, *((size,) for size in SMALL_UBATCHES))
    else:  # on the CPU a larger one gains nothing
        groups = ((min(machine.ubatches),), *((size,) for size in SMALL_UBATCHES))
    for group in groups:
        found = []
        for n_ubatch in group:
            if n_ubatch > cells(placement.n_ctx) and n_ubatch != min(group):
                continue
            sized = replace(placement, n_ubatch=n_ubatch, n_batch=max(Placement.n_batch, n_ubatch))
            if (one := _place(shape, machine, request, sized)) is not None:
                found.append(one)
        if found:
            best = min(found, key=lambda one: one.seconds(request.purpose))
            if n_small := group[0] if group[0] in SMALL_UBATCHES and not request.n_ubatch else 0:
                why = f"micro-batches have {n_small} tokens, because larger ones do not fit"
                best = replace(best, reasons=(why, *best.reasons))
            return best
    return None


def _place(shape: ModelShape, machine: Machine, request: Request, placement: Placement) -> Plan | None:
    """Give the best plan for exactly these settings."""
    candidates = [_finish(shape, machine, request, placement, on_host(shape, len(machine.gpus)))]
    if machine.gpus:
        candidates += [
            _finish(shape, machine, request, placement, layout)
            for layout in _gpu_layouts(shape, machine, placement)
        ]
    fitting = [one for one in candidates if one is not None]
    return min(fitting, key=lambda one: one.seconds(request.purpose)) if fitting else None


def _gpu_layouts(shape: ModelShape, machine: Machine, placement: Placement) -> Iterator[Layout]:
    """Give the layouts worth a look: everything on GPUs, and the most experts that fit beside all attention (or most of it)."""
    layers = shape.each_layer()
    kv = bytes_kv_layer(shape, cells(placement.n_ctx), placement.type_k, placement.type_v)
    fixed = Fixed.of(layers, kv, shape.bytes_output)
    gains = _gains(machine)
    for whole in (True, False):
        reserve = list(_reserve(shape, machine, placement, whole=whole))
        for _ in range(4):  # a pattern may need a little more than the reserve foresees
            rooms = [gpu.bytes_free - kept for gpu, kept in zip(machine.gpus, reserve, strict=True)]
            layout = next(
                (
                    found
                    for first in (range(1) if whole else range(len(layers) + 1))
                    if (found := fill(layers, rooms, gains, fixed, first)) is not None
                ),
                None,
            )
            if layout is None or (whole and layout.has_overrides):
                break
            real = compute_of(shape, machine, placement, layout)
            short = [max(0, need - kept) for need, kept in zip(real, reserve, strict=False)]
            if not any(short):
                yield layout
                break
            reserve = [kept + more for kept, more in zip(reserve, short, strict=True)]


def _gains(machine: Machine) -> list[float]:
    """Give the seconds that a gigabyte of experts saves on each GPU; never nothing, or a slow card would stay empty."""
    slow = 1 / machine.bandwidth
    return [max(slow - 1 / gpu.bandwidth, slow / 1000) for gpu in machine.gpus]


def _reserve(shape: ModelShape, machine: Machine, placement: Placement, *, whole: bool) -> list[int]:
    """Give the compute buffers to keep free on each GPU, whichever experts go there: the largest of some typical patterns."""
    host, n = len(machine.gpus), shape.n_layer
    n_short = min(n, 4 * host)  # buffers do not grow with further layers of the same kind
    home = tuple(min(i * host // n_short, host - 1) for i in range(n_short))
    short = replace(shape, n_layer=n_short, layers=shape.each_layer()[:n_short])
    patterns = [[True] * n_short]
    if not whole:
        patterns = [
            [False] * n_short,
            [i % 2 == 0 for i in range(n_short)],
            [i % 4 > 1 for i in range(n_short)],
        ]
        patterns.append([i % 4 <= 1 for i in range(n_short)])
    most = [0] * host
    for pattern in patterns:
        experts = tuple(
            (at, at, at) if there else (host,) * 3 for at, there in zip(home, pattern, strict=True)
        )
        layout = Layout(host, home, experts, host - 1)
        real = compute_of(short, machine, placement, layout)
        most = [max(pair) for pair in zip(most, real, strict=False)]
    return most


def _finish(
    shape: ModelShape, machine: Machine, request: Request, placement: Placement, layout: Layout
) -> Plan | None:
    """Turn a layout into a plan, or None when a device has too little room."""
    placement = replace(
        placement,
        n_gpu_layers=layout.n_gpu_layers,
        tensor_split=layout.tensor_split(),
        tensor_overrides=layout.overrides(machine, dense=not shape.n_expert),
        repack=request.purpose == "chat",
        op_offload=layout.n_gpu_layers > 0,
    )
    ledger = accounts(shape, machine, placement, layout)
    *gpus, host = ledger
    if any(account.left < 0 for account in gpus):
        return None
    if machine.unified and sum(account.need for account in ledger) > machine.bytes_free:
        return None
    reasons = []
    missing = max(0, -host.left)
    if missing:
        if not request.from_disk or missing > host.experts:
            return None
        placement = replace(placement, load_mode="mmap", repack=False)
    elif layout.n_gpu_layers and host.experts and host.need <= PINNED_SHARE * host.bytes_free:
        placement = replace(placement, load_mode="none")
    reached = estimate(shape, machine, placement, layout, missing)
    if missing:
        reasons.append(
            f"{missing / GIB:.1f} GiB of the experts do not fit into main memory and are read from disk again and again: "
            f"about {reached.disk_seconds:.1f} seconds more for every token"
        )
    return Plan(placement, layout, ledger, reached, tuple(reasons))


__all__ = ["DEFAULT_CTX", "GIB", "MIN_CTX", "Gpu", "Machine", "Plan", "Request", "plan"]
