"""Estimate the compute buffers to reserve before the experts are placed: the most that typical layouts need.

It depends on dimensions, batch and the number of GPUs, never on how much memory there is: so more memory can only allow more.
"""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import cache

from profiles.buffers import Buffers
from profiles.layout import Layout
from profiles.packing import Kind, Mode
from profiles.placement import Placement
from profiles.prices import STAY, WHOLE, Parts

# Layers wholly in host memory, then the experts of each layer of a GPU: 1 there, 0 in host memory. Every neighborhood is there once;
# buffers do not grow with further layers of the same kind.
PATTERNS: dict[Mode, tuple[tuple[int, tuple[int, ...]], ...]] = {
    "all": ((0, (1, 1, 1)),),
    "some": ((0, (0, 0, 0)), (0, (0, 0, 1, 1, 0, 1))),
    "none": ((0, (0, 0, 0)), (3, (0, 0, 0)), (3, (0,)), (3, ())),
}


@dataclass(frozen=True)
class Kept:
    """Bytes to keep on a GPU that has no layers, some layers, or the last of them and the output layer."""

    empty: int = 0
    run: int = 0
    with_output: int = 0


@dataclass(frozen=True)
class Reserve:
    """Bytes to keep on every GPU and in host memory."""

    gpus: tuple[Kept, ...]
    host: int = 0

    def and_for(self, other: "Reserve") -> "Reserve":
        """Return what suffices for both."""
        gpus = (
            Kept(max(a.empty, b.empty), max(a.run, b.run), max(a.with_output, b.with_output))
            for a, b in zip(self.gpus, other.gpus, strict=True)
        )
        return Reserve(tuple(gpus), max(self.host, other.host))


def reserve(buffers: Buffers, placement: Placement, kind: Kind) -> Reserve:
    """Return what to keep for layouts of that kind; with splits, what their layouts need that others of the mode do not have.

    `buffers` are those of typical layouts.
    """
    most, most_host = [Kept()] * len(buffers.gpus), 0
    for layout, used in _typical(len(buffers.gpus), buffers.offload, kind):
        *gpus, host = buffers.of(placement, layout)
        most_host = max(most_host, host)
        for gpu, n_bytes in enumerate(gpus):
            state = "with_output" if gpu == layout.output else "run" if gpu in used else "empty"
            if n_bytes > getattr(most[gpu], state):
                most[gpu] = replace(most[gpu], **{state: n_bytes})
    return Reserve(tuple(most), most_host)


@cache
def _typical(n_gpus: int, offload: int | None, kind: Kind) -> tuple[tuple[Layout, tuple[int, ...]], ...]:
    """Return layouts of that kind with the GPUs that have layers: the first ones of the machine, so that each is the last once.

    `offload` computes with the host's experts even when it has no layer.
    """
    host = n_gpus
    groups = [tuple(range(gpu + 1)) for gpu in range(n_gpus)]
    if offload is not None and n_gpus > 1:
        groups.append(tuple(gpu for gpu in range(n_gpus) if gpu != offload))
    found = []
    for used in groups:
        for n_before, pattern in _patterns(kind):
            attention, experts = [host] * n_before, [(host,) * 3] * n_before
            for gpu in used:
                for parts in pattern:
                    attention.append(gpu)
                    gate, up, down = (gpu if there else host for there in parts)
                    experts.append((gate, up, down))
            layout = Layout(host, tuple(attention), tuple(experts), used[-1])
            found.append((layout, used if pattern else ()))
    return tuple(found)


def _patterns(kind: Kind) -> Iterator[tuple[int, tuple[Parts, ...]]]:
    if kind.splits:
        yield 0, (STAY, *(parts for split in kind.splits for parts in (split, WHOLE, STAY)))
        return
    for n_before, pattern in PATTERNS[kind.mode]:
        yield n_before, tuple((there,) * 3 for there in pattern)
