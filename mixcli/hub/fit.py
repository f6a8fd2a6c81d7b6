"""Which file type fits: pure arithmetic over sizes and this machine's free memory."""

from collections.abc import Iterable
from dataclasses import dataclass

from mixcli.hub.catalog import Entry
from profiles.memory import bytes_kv
from profiles.shape import ModelShape

# Bits per weight of Mixtral 8x7B under llama.cpp's present rules (its whole file divided by its weights), worst quality first.
# For a first look only: whoever chooses a file sums its tensors.
BITS = {
    "Q2_K": 2.97,
    "Q3_K_S": 3.50,
    "Q3_K_M": 3.86,
    "IQ4_XS": 4.35,
    "Q4_K_S": 4.58,
    "Q4_K_M": 4.87,
    "Q5_K_M": 5.69,
    "Q6_K": 6.57,
    "Q8_0": 8.50,
}
# From here on a file grows and answers no longer become noticeably better
BEST = "Q5_K_M"
OVERHEAD = 1 << 30  # KV cache at a usual context, compute buffers and the process, for the first look
BYTES_RUNNING = 768 << 20  # compute buffers and the process
DEFAULT_CTX, MIN_CTX = 8192, 1024
# All file types that are known to be no better than BEST, and BEST; worst first
QUALITY = (
    "IQ1_S", "IQ1_M", "IQ2_XXS", "IQ2_XS", "IQ2_S", "IQ2_M", "Q2_K_S", "Q2_K", "Q2_K_L", "IQ3_XXS", "IQ3_XS", "IQ3_S", "Q3_K_S", "IQ3_M",
    "Q3_K_M", "Q3_K_L", "Q3_K_XL", "Q4_0", "Q4_1", "IQ4_XS", "IQ4_NL", "Q4_K_S", "Q4_K_M", "Q4_K_L", "Q5_0", "Q5_1", "Q5_K_S", "Q5_K_M",
)  # fmt: skip


def fits(entry: Entry, bytes_free: int | None = None) -> str | None:
    """Return the best type of a catalog entry that fits into the free memory; None when nothing does."""
    if bytes_free is None:
        from mixcli.hardware import memory_free

        bytes_free = memory_free()
    order = list(BITS)[: list(BITS).index(BEST) + 1]
    types = [name for name in order if not entry.types or name in entry.types]
    fitting = [name for name in types if entry.parameters * 1e9 * BITS[name] / 8 + OVERHEAD <= bytes_free]
    return fitting[-1] if fitting else None


@dataclass(frozen=True)
class Offer:
    """One file type that a repository has: the bytes of all its parts, and the context that it can have here; 0 when it does not fit."""

    type: str
    size: int
    n_ctx: int

    @property
    def fits(self) -> bool:
        return self.n_ctx > 0


def offers(sizes: Iterable[tuple[str, int]], shape: ModelShape, bytes_free: int) -> list[Offer]:
    """Return an offer for each type, given as (type, bytes): whether it runs in `bytes_free` of memory; smallest first.

    `shape` is that of any of them: all have the same dimensions. This is the first look, before anything is downloaded; the planner
    decides when the model is loaded.
    """
    return [
        Offer(name, size, _context(size, shape, bytes_free))
        for name, size in sorted(sizes, key=lambda pair: pair[1])
    ]


def _context(size: int, shape: ModelShape, bytes_free: int) -> int:
    """Return the largest of the usual contexts that fits beside weights of `size` bytes."""
    n_ctx = min(shape.n_ctx_train or DEFAULT_CTX, DEFAULT_CTX)
    smallest = min(n_ctx, MIN_CTX)
    while n_ctx >= smallest:
        if size + bytes_kv(shape, n_ctx) + BYTES_RUNNING <= bytes_free:
            return n_ctx
        n_ctx //= 2
    return 0


def best(found: list[Offer]) -> Offer | None:
    """Choose the largest that has the widest context that any has, none above BEST where there is another."""
    fitting = [offer for offer in found if offer.fits]
    if not fitting:
        return None
    widest = max(offer.n_ctx for offer in fitting)
    whole = [offer for offer in fitting if offer.n_ctx == widest]
    limit = QUALITY.index(BEST)
    modest = [offer for offer in whole if offer.type in QUALITY and QUALITY.index(offer.type) <= limit]
    return (modest or whole)[-1]
