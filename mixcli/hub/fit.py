"""Which file type fits: pure arithmetic over sizes and this machine's free memory."""

from collections.abc import Iterable
from dataclasses import dataclass, replace

from mixcli.hub.catalog import Entry
from profiles.errors import DoesNotFit
from profiles.planner import Machine, Request, plan
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


def fits(entry: Entry, bytes_free: int | None = None) -> str | None:
    """Give the best type of a catalog entry that fits into the free memory; None when nothing does."""
    if bytes_free is None:
        from mixcli.hardware import memory_free

        bytes_free = memory_free()
    order = list(BITS)[: list(BITS).index(BEST) + 1]
    types = [name for name in order if not entry.types or name in entry.types]
    fitting = [name for name in types if entry.parameters * 1e9 * BITS[name] / 8 + OVERHEAD <= bytes_free]
    return fitting[-1] if fitting else None


@dataclass(frozen=True)
class Offer:
    """One file type that a repository has: the bytes of all its parts, and whether and why (not) it fits."""

    type: str
    size: int
    n_ctx: int
    problem: str

    @property
    def fits(self) -> bool:
        return not self.problem


def offers(sizes: Iterable[tuple[str, int]], shape: ModelShape, machine: Machine) -> list[Offer]:
    """Say of each type, given as (type, bytes), whether it runs on a machine; smallest first.

    `shape` is that of any of them: all have the same dimensions, and a file's bytes are its weights but for a few headers.
    """
    found = []
    for name, size in sorted(sizes, key=lambda pair: pair[1]):
        try:
            placement = plan(replace(shape, bytes_experts=0, bytes_other=size), machine, Request())
            found.append(Offer(name, size, placement.n_ctx, ""))
        except DoesNotFit as error:
            found.append(Offer(name, size, 0, str(error)))
    return found


def best(found: list[Offer]) -> Offer | None:
    """Choose the largest that fits with its whole context, none above BEST where there is another; then the largest that fits at all."""
    fitting = [offer for offer in found if offer.fits]
    if not fitting:
        return None
    widest = max(offer.n_ctx for offer in fitting)
    whole = [offer for offer in fitting if offer.n_ctx == widest]
    modest = [
        offer
        for offer in whole
        if offer.type in BITS and list(BITS).index(offer.type) <= list(BITS).index(BEST)
    ]
    return (modest or whole)[-1]
