"""plan(): how a model should run on a machine. Pure: numbers in, a Placement out, or a refusal with its reasons.

This is the CPU's share: everything in main memory. What goes to a GPU is decided here too once profiles describe one.
"""

from dataclasses import dataclass

from profiles.errors import DoesNotFit
from profiles.memory import bytes_compute, bytes_kv
from profiles.placement import Placement
from profiles.shape import ModelShape

GIB = 1 << 30
DEFAULT_CTX = 8192
MIN_CTX = 1024
BYTES_PROCESS = 256 << 20  # Python, FastAPI and llama.cpp themselves, measured on Linux


@dataclass(frozen=True)
class Machine:
    """What a machine offers: `bytes_free` of main memory, and physical cores."""

    bytes_free: int
    n_cores: int


@dataclass(frozen=True)
class Request:
    """What a person asks for; None leaves it to the planner."""

    n_ctx: int | None = None


def plan(shape: ModelShape, machine: Machine, request: Request) -> Placement:
    """Give the placement for a model on a machine; DoesNotFit with need, have and ways out.

    A context that was asked for is kept or refused. Without one the model's own is taken, at most 8192 tokens, halved until it fits.
    """
    if request.n_ctx is not None and shape.n_ctx_train and request.n_ctx > shape.n_ctx_train:
        raise DoesNotFit(
            f"a context of {request.n_ctx} tokens was asked for, the model was trained for {shape.n_ctx_train}; "
            f"try --ctx {shape.n_ctx_train} or less"
        )
    n_ctx = request.n_ctx or min(shape.n_ctx_train or DEFAULT_CTX, DEFAULT_CTX)
    while (need := _bytes_needed(shape, n_ctx)) > machine.bytes_free:
        if request.n_ctx is not None or n_ctx <= MIN_CTX:
            raise DoesNotFit(_refusal(shape, machine, need, n_ctx))
        n_ctx //= 2
    threads = max(1, machine.n_cores)
    return Placement(n_ctx=n_ctx, n_threads=threads, n_threads_batch=threads)


def _bytes_needed(shape: ModelShape, n_ctx: int) -> int:
    compute = bytes_compute(shape, Placement.n_ubatch, n_ctx)
    return shape.bytes_weights + bytes_kv(shape, n_ctx) + compute + BYTES_PROCESS


def _refusal(shape: ModelShape, machine: Machine, need: int, n_ctx: int) -> str:
    room = machine.bytes_free - _bytes_needed(shape, 0)
    fitting = room // max(1, _bytes_needed(shape, 1) - _bytes_needed(shape, 0))
    if fitting >= MIN_CTX:
        way_out = f"try --ctx {fitting // 256 * 256}"
    else:
        way_out = "try a smaller type of the model, close other programs, or use a machine with more memory"
    return (
        f"the model needs {need / GIB:.1f} GiB with a context of {n_ctx} tokens "
        f"(weights {shape.bytes_weights / GIB:.1f}, KV cache {bytes_kv(shape, n_ctx) / GIB:.1f}), "
        f"{machine.bytes_free / GIB:.1f} GiB are free; {way_out}"
    )
