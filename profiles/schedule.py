"""Compute the memory that llama.cpp's scheduler and graph allocator need for a graph, device by device.

The rules are ggml's own, written down again and held to its log by tests: ops go where their weights are, ops without weights follow
their neighbors (GPUs first), what another device made is copied in at the start of a split (ggml-backend.cpp); memory is handed out
best fit, an op may write over a source that nothing else needs, and what is no longer needed is free again (ggml-alloc.c).
"""

from array import array
from bisect import bisect
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from profiles.graph.model import Graph
from profiles.graph.nodes import Share, Tensor, terms

ALIGNMENT = 32  # of the CPU's buffers; CUDA's 128 makes a difference of bytes
PIPELINE_COPIES = 4  # GGML_SCHED_MAX_COPIES: inputs are kept so often when several GPUs work in a pipeline
_ENDLESS = 1 << 62


class Size(NamedTuple):
    """The bytes of tensors that are alike: fixed, for each token, each cell, each token with each cell; or a share of a weight of the host."""

    fixed: int
    per_token: int
    per_cell: int
    per_both: int
    share: Share | None

    def of(self, n_tokens: int, n_cells: int, bytes_parts: Sequence[int]) -> int:
        """Return them with the padding of the allocator."""
        if self.share is not None:
            n_bytes = self.share.of(bytes_parts)
        else:
            n_bytes = (
                self.fixed + n_tokens * self.per_token + n_cells * (self.per_cell + n_tokens * self.per_both)
            )
        return -(-n_bytes // ALIGNMENT) * ALIGNMENT


@dataclass(frozen=True)
class Program:
    """What the allocator does for a graph, in order, however much its tensors weigh.

    So files of other types, other batches and other contexts need no new graph. `events` has for each device the numbers of the tensors that take memory
    there, their complements where it is given back. `kinds` has the place in `sizes` of each tensor's size, and `sharing` the devices that have copies
    of the host's weights.
    """

    events: tuple["array[int]", ...]
    kinds: "array[int]"
    sizes: tuple[Size, ...]
    sharing: frozenset[int]
    _known: dict[tuple[int, ...], int] = field(default_factory=dict, compare=False)

    def peaks(self, n_tokens: int, n_cells: int, bytes_parts: Sequence[int]) -> tuple[int, ...]:
        """Return the bytes of every device's compute buffer, the host last; `bytes_parts` has the host's tensors by a Share's part."""
        sizes: list[int] | None = None
        found = []
        for device, events in enumerate(self.events):
            # where no weight is copied to, only tokens and cells count
            key = (device, n_tokens, n_cells, *(bytes_parts if device in self.sharing else ()))
            if key not in self._known:
                if sizes is None:
                    each = [size.of(n_tokens, n_cells, bytes_parts) for size in self.sizes]
                    sizes = [each[kind] for kind in self.kinds]
                self._known[key] = _peak(events, sizes)
            found.append(self._known[key])
        return tuple(found)


def _peak(events: Sequence[int], sizes: Sequence[int]) -> int:
    """Return what one device's buffer comes to: tensors take the smallest free block that is large enough, the endless one behind all others last.

    It runs hundreds of times for a plan, so it makes no objects: free blocks are two lists, in the order of addresses.
    """
    starts, rooms = [0], [_ENDLESS]
    addresses = [0] * len(sizes)
    peak = 0
    for number in events:
        if number >= 0:
            size, at, least = sizes[number], 0, 2 * _ENDLESS
            for i, room in enumerate(rooms):
                if size <= room <= least:
                    at, least = i, room
            addresses[number] = address = starts[at]
            if least == size:
                del starts[at], rooms[at]
                continue
            starts[at] = address + size
            if least < _ENDLESS:
                rooms[at] = least - size
            elif address + size > peak:
                peak = address + size
        elif size := sizes[~number]:
            address = addresses[~number]
            at = bisect(starts, address)
            if address + size == starts[at]:  # the last block is endless, so there is one behind
                size += rooms[at]
                del starts[at], rooms[at]
            if at and starts[at - 1] + rooms[at - 1] == address:
                rooms[at - 1] += size
            else:
                starts.insert(at, address)
                rooms.insert(at, size)
    return peak


def program(graph: Graph, n_devices: int, *, pipeline: bool = False) -> Program:
    """Return what is allocated and given back for a graph of a batch of ANY_TOKENS and a cache of ANY_CELLS.

    It writes into the graph, so each is good for one call.
    """
    _assign(graph, n_devices - 1)
    steps, copies = _split(graph)
    record = _Record(n_devices)
    leafs = graph.inputs
    if pipeline:
        leafs = [*graph.inputs, *copies]
        for tensor in leafs:
            tensor.kept = True
            for _ in range(PIPELINE_COPIES - 1):
                record.take(tensor)
    record.all_of(leafs, steps)
    return record.program()


def _assign(graph: Graph, host: int) -> None:
    """Choose a device for every node that has none yet: first in the GPUs' neighborhoods, then the rest."""
    nodes = [node for node in graph.nodes if node.root is None]
    for backwards, skips_host in ((False, True), (True, True), (False, False), (True, False)):
        current = -1
        for node in reversed(nodes) if backwards else nodes:
            if node.device >= 0:
                current = -1 if skips_host and node.device == host else node.device
            elif current >= 0:
                node.device = current
    for node in graph.nodes:
        if node.root is not None:
            node.device = node.root.device


def _split(graph: Graph) -> tuple[list[Tensor], list[Tensor]]:
    """Cut the graph where the device changes; returns the steps with copies of inputs before each part, and those copies."""
    steps: list[Tensor] = []
    part: list[Tensor] = []
    inputs: list[tuple[Tensor, Tensor]] = []
    made: list[Tensor] = []
    current = None

    def close() -> None:
        for source, copy in inputs:
            hold = Tensor(0, [source], external=True)  # keeps the source until it is copied
            steps.extend((hold, copy))
        steps.extend(part)
        part.clear()
        inputs.clear()

    for node in graph.nodes:
        if node.root is not None and not node.root.external:
            part.append(node)
            continue
        home = node.device
        brings_weight = bool(inputs) and any(src.is_weight and src.device != home for src in node.srcs)
        if current is not None and (home != current or brings_weight):
            close()
        current = home
        for i, src in enumerate(node.srcs):
            if src.device == home:
                continue
            if src.copies is None:
                src.copies = {}
            copy = src.copies.get(home)
            if copy is None:
                copy = src.copies[home] = Tensor(src.size, [], home=home, share=src.share)
                inputs.append((src, copy))
                made.append(copy)
            node.srcs[i] = copy
        part.append(node)
    close()
    return steps, made


class _Record:
    """Walks over the steps and writes down what the allocator does; blocks are numbers of the tensors that they were taken for."""

    def __init__(self, n_devices: int) -> None:
        self._events = [array("l") for _ in range(n_devices)]
        self._devices: list[int] = []  # where each took its block: a tensor may pass it on
        self._kinds = array("l")
        self._sizes: dict[tuple[int, Share | None], int] = {}  # each with its place
        self._sharing: set[int] = set()

    def program(self) -> Program:
        """Return what was written down."""
        sizes = tuple(Size(*terms(n_bytes), share) for n_bytes, share in self._sizes)
        return Program(tuple(self._events), self._kinds, sizes, frozenset(self._sharing))

    def take(self, tensor: Tensor) -> int:
        number = len(self._devices)
        self._events[tensor.device].append(number)
        self._devices.append(tensor.device)
        self._kinds.append(self._sizes.setdefault((tensor.size, tensor.share), len(self._sizes)))
        if tensor.share is not None:
            self._sharing.add(tensor.device)
        return number

    def all_of(self, leafs: Sequence[Tensor], steps: Sequence[Tensor]) -> None:
        """Count for each tensor how many still read it and how many views of it are alive."""
        for leaf in leafs:
            self._allocate(leaf)
        for node in steps:
            if node.root is not None:
                node.root.views += 1
            for src in node.srcs:
                src.readers += 1
        for node in steps:
            if not node.external:
                self._allocate(node)
            for src in node.srcs:
                src.readers -= 1
                if src.readers or src.views:
                    continue
                owner = src.root
                if owner is None:
                    owner = src
                else:
                    owner.views -= 1
                    if owner.views or owner.readers:
                        continue
                if owner.block is not None and not owner.kept:
                    self._events[self._devices[owner.block]].append(~owner.block)
                    owner.block = None

    def _allocate(self, tensor: Tensor) -> None:
        if tensor.root is not None or tensor.block is not None:
            return
        for place in tensor.over:
            parent = tensor.srcs[place]
            if parent.readers == 1 and not parent.views and parent.block is not None and not parent.kept:
                tensor.block, parent.block = parent.block, None
                tensor.device = parent.device
                return
        tensor.block = self.take(tensor)
