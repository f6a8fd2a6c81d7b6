"""Messages for models that do not fit: memory needed and available, and the three nearest alternatives."""

from collections.abc import Callable, Iterator
from dataclasses import replace

from profiles.errors import BadRequest, DoesNotFit
from profiles.graph.nodes import QUANTIZED_KV
from profiles.layout import on_host
from profiles.ledger import accounts
from profiles.machine import Machine
from profiles.memory import CELLS, GIB, KV_TYPES, bytes_kv, bytes_process, cells, kv_types_of
from profiles.placement import Placement
from profiles.quality import BITS
from profiles.request import PlanRequest
from profiles.shape import ModelShape

MIN_CTX = 1024
LAST_WAYS = ("a machine with more memory", "a model with fewer parameters")


def refuse_context(request: PlanRequest, trained: int) -> DoesNotFit | BadRequest | None:
    """Return the refusal of a context beyond the `trained` one (0: unknown), or of work that does not fit in either; None where all is well."""
    asked, work = request.n_ctx, request.least_ctx
    if asked is not None and trained and asked > trained:
        return DoesNotFit(
            f"a context of {asked} tokens exceeds the trained context of {trained} tokens; try --ctx {trained} or less"
        )
    if trained and work > trained:
        return DoesNotFit(
            f"{request.purpose} are {work} tokens, which exceed the trained context of {trained} tokens; choose less work (--for), or another model"
        )
    if asked is not None and work > asked:
        return BadRequest(
            f"{request.purpose} are {work} tokens, which do not fit in a context of {asked}; use --ctx {work} or more, or less work (--for)"
        )
    return None


def refuse_kv(asked: str | None, shape: ModelShape) -> BadRequest:
    """Refuse a cache type whose blocks do not divide the model's heads."""
    _, block = KV_TYPES.get(asked or "", (0, 0))
    if not block:
        return BadRequest(f"invalid KV cache type {asked!r}; use {', '.join(KV_TYPES)}")
    dims = sorted({shape.head_dim_k, shape.head_dim_v})
    return BadRequest(
        f"a KV cache in {asked} has blocks of {block} values, but this model's heads have {' and '.join(map(str, dims))}; "
        f"try --kv {' or --kv '.join(kv_types_of(shape))}"
    )


def refuse(
    shape: ModelShape,
    machine: Machine,
    request: PlanRequest,
    placement: Placement,
    fits: Callable[[ModelShape, PlanRequest], bool],
    instead: Callable[[], str] | None = None,
) -> DoesNotFit:
    """Return what a model needs in that placement, what there is, and what would fit instead; `fits` tries a way out.

    `instead` returns another file as a way out, or nothing.
    """
    layout = on_host(shape, len(machine.gpus))
    need = sum(account.need for account in accounts(shape, machine, placement, layout))
    free = f"allowed by {machine.budget.limits}" if machine.budget and machine.budget.limits else "free"
    have, where = machine.bytes_free, free
    if machine.gpus and not machine.unified:
        have += sum(gpu.bytes_free for gpu in machine.gpus)
        where = f"{free} on {' + '.join(gpu.name for gpu in machine.gpus)} and in host memory together"
    missing = need - have
    if need <= have:  # together there is enough, but not where it is needed
        least = shape.bytes_embedding + bytes_process(shape, placement)
        have, where = (
            machine.bytes_free,
            f"{free} in host memory, which needs {least / GIB:.1f} even with all GPUs full",
        )
        missing = least - have
        if machine.bytes_free >= least:
            where = f"{free} in host memory, and compute buffers leave too little memory on the GPUs"
    last_ways = (machine.budget.way if machine.budget else "closing other programs", *LAST_WAYS)
    ways = [*_ways(shape, request, placement, fits, instead), *last_ways][:3]
    if setting := machine.more_memory(missing):
        ways[2:] = [setting]
    kv = bytes_kv(shape, cells(placement.n_ctx), placement.type_k, placement.type_v)
    return DoesNotFit(
        f"the model needs {need / GIB:.1f} GiB with a context of {placement.n_ctx} tokens "
        f"(weights {shape.bytes_weights / GIB:.1f}, KV cache {kv / GIB:.1f}), "
        f"{have / GIB:.1f} GiB are {where}; try {', or '.join(ways)}"
    )


def _ways(
    shape: ModelShape,
    request: PlanRequest,
    placement: Placement,
    fits: Callable[[ModelShape, PlanRequest], bool],
    instead: Callable[[], str] | None,
) -> Iterator[str]:
    """Yield the nearest ways out: a smaller context, a smaller cache, a smaller file, both together, or the disk."""
    if n_ctx := _largest_context(shape, request, placement.n_ctx, fits):
        yield f"--ctx {n_ctx}"
    smaller = replace(request, kv="q8_0")
    if placement.type_k not in QUANTIZED_KV and fits(shape, smaller):
        yield "--kv q8_0"
    if instead is not None:
        if way := instead():
            yield way
    else:
        yield from _smaller_file(shape, request, placement, fits)
    if not request.from_disk and fits(shape, replace(request, from_disk=True)):
        yield "--from-disk, which is slow"


def _smaller_file(
    shape: ModelShape,
    request: PlanRequest,
    placement: Placement,
    fits: Callable[[ModelShape, PlanRequest], bool],
) -> Iterator[str]:
    """Yield the largest of the usual types that fits, or the smallest with a smaller cache and context."""
    smaller = replace(request, kv="q8_0")
    bits = 8 * shape.bytes_weights / shape.params_total
    for name, of_type in BITS.items():
        if of_type < bits - 0.05 and fits(shape.scaled(int(shape.bytes_weights * of_type / bits)), request):
            yield f"--quant {name}"
            break
    else:
        least = shape.scaled(int(shape.bytes_weights * min(1.0, BITS["Q2_K"] / bits)))
        if n_ctx := _largest_context(least, smaller, placement.n_ctx, fits):
            yield f"--quant Q2_K with --kv q8_0 and --ctx {n_ctx}"


def _largest_context(
    shape: ModelShape, request: PlanRequest, below: int, fits: Callable[[ModelShape, PlanRequest], bool]
) -> int | None:
    """Return the largest context below another one that fits, in steps of the cache's cells; None below MIN_CTX."""
    low, high = max(MIN_CTX // CELLS, -(-request.least_ctx // CELLS)) - 1, -(-below // CELLS)
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if fits(shape, replace(request, n_ctx=middle * CELLS)) else (low, middle)
    return low * CELLS if low * CELLS >= max(MIN_CTX, request.least_ctx) else None
