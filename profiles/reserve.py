"""Estimate the compute buffers to reserve before the experts are placed: the most that typical layouts need.

It depends on dimensions, batch and the number of GPUs, never on how much memory there is: so more memory can only allow more.
"""

from collections.abc import Iterator
from dataclasses import dataclass, replace

from profiles.layout import Layout
from profiles.ledger import compute_of
from profiles.machine import Machine
from profiles.packing import STAY, Kind, Mode
from profiles.packing_one_gpu import WHOLE, Parts
from profiles.placement import Placement
from profiles.shape import LayerShape, ModelShape

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


def reserve(
    shape: ModelShape, machine: Machine, placement: Placement, kind: Kind
) -> tuple[tuple[Kept, ...], int]:
    """Return what to keep on every GPU and in host memory for layouts of that kind."""
    host = len(machine.gpus)
    most, most_host = [Kept()] * host, 0
    parts = ("attention", "gate", "up", "down")
    layers = (
        shape.each_layer()[shape.n_layer_dense :] or shape.each_layer()
    )  # what a leading dense layer needs, the ledger says
    largest = LayerShape(*(max(getattr(one, part) for one in layers) for part in parts))
    for layout, used in _typical(machine, kind):
        n_layer = len(layout.attention)
        enough = shape.bytes_other + n_layer * (
            largest.attention + largest.experts
        )  # a shape whose layers are more than the whole is not believed
        short = replace(
            shape, n_layer=n_layer, n_layer_dense=0, layers=(largest,) * n_layer, bytes_other=enough
        )
        *gpus, there = compute_of(short, machine, placement, layout)
        most_host = max(most_host, there)
        for gpu, n_bytes in enumerate(gpus):
            state = "with_output" if gpu == layout.output else "run" if gpu in used else "empty"
            if n_bytes > getattr(most[gpu], state):
                most[gpu] = replace(most[gpu], **{state: n_bytes})
    return tuple(most), most_host


def _typical(machine: Machine, kind: Kind) -> Iterator[tuple[Layout, tuple[int, ...]]]:
    """Yield layouts of that kind with the GPUs that have layers: the first ones of the machine, so that each is the last once."""
    host = len(machine.gpus)
    groups = [tuple(range(gpu + 1)) for gpu in range(host)]
    offload = next((i for i, gpu in enumerate(machine.gpus) if gpu.computes_host_weights), None)
    if (
        offload is not None and host > 1
    ):  # that one computes with the host's experts even when it has no layer
        groups.append(tuple(gpu for gpu in range(host) if gpu != offload))
    for used in groups:
        for n_before, pattern in _patterns(kind):
            attention, experts = [host] * n_before, [(host,) * 3] * n_before
            for gpu in used:
                for parts in pattern:
                    attention.append(gpu)
                    gate, up, down = (gpu if there else host for there in parts)
                    experts.append((gate, up, down))
            yield Layout(host, tuple(attention), tuple(experts), used[-1]), used if pattern else ()


def _patterns(kind: Kind) -> Iterator[tuple[int, tuple[Parts, ...]]]:
    for n_before, pattern in PATTERNS[kind.mode]:
        yield n_before, tuple((there,) * 3 for there in pattern)
    if kind.splits:
        yield 0, (STAY, *(parts for split in kind.splits for parts in (split, WHOLE, STAY)))
