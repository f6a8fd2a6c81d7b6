"""Compute the memory that llama.cpp's scheduler and graph allocator need for a graph, device by device.

The rules are ggml's own, written down again and held to its log by tests: ops go where their weights are, ops without weights follow
their neighbors (GPUs first), what another device made is copied in at the start of a split (ggml-backend.cpp); memory is handed out
best fit, an op may write over a source that nothing else needs, and what is no longer needed is free again (ggml-alloc.c).
"""

from array import array
from bisect import bisect
from collections.abc import Sequence
from dataclasses import dataclass, field

from profiles.graph.model import Graph
from profiles.graph.nodes import Share, Tensor, in_tokens

ALIGNMENT = 32  # of the CPU's buffers; CUDA's 128 makes a difference of bytes
PIPELINE_COPIES = 4  # GGML_SCHED_MAX_COPIES: inputs are kept so often when several GPUs work in a pipeline
_ENDLESS = 1 << 62


class Arena:
    """One device's buffer: free blocks sorted by address, the last of them endless; `peak` is what was ever used, in bytes.

    Sizes are multiples of the alignment.
    """

    def __init__(self) -> None:
        self._free: list[tuple[int, int]] = [(0, _ENDLESS)]
        self.peak = 0

    def take(self, size: int) -> int:
        """Hand out the smallest free block that is large enough, the endless one last; returns its address."""
        best, best_size = len(self._free) - 1, _ENDLESS
        for i in range(len(self._free) - 1):
            if size <= self._free[i][1] <= best_size:
                best, best_size = i, self._free[i][1]
        address, room = self._free[best]
        if room == size:
            del self._free[best]
        else:
            self._free[best] = (address + size, room - size)
        self.peak = max(self.peak, address + size)
        return address

    def give_back(self, address: int, size: int) -> None:
        """Free a block and join it with free neighbors."""
        if not size:
            return
        free, end = self._free, address + size
        i = bisect(free, (address, size))
        if end == free[i][0]:  # the last block is endless, so there is one behind
            end += free.pop(i)[1]
        if i:
            before, room = free[i - 1]
            if before + room == address:
                free[i - 1] = (before, end - before)
                return
        free.insert(i, (address, end - address))


@dataclass(frozen=True)
class Program:
    """What the allocator does for a graph, in order, whatever the host's weights weigh and however many tokens a batch has.

    So files of other types, and other batches, need no new graph. `events` has for each device the numbers of the tensors that take memory
    there, their complements where it is given back. A tensor has `fixed` bytes and `per_token` more for every token; `shares` are the
    numbers of copied weights, each with its Share, and `sharing` the devices that have some.
    """

    events: tuple["array[int]", ...]
    fixed: "array[int]"
    per_token: "array[int]"
    shares: tuple[tuple[int, Share], ...]
    sharing: frozenset[int]
    _known: dict[int, dict[int, int]] = field(default_factory=dict, compare=False)

    def peaks(self, n_tokens: int, bytes_parts: Sequence[int]) -> tuple[int, ...]:
        """Return the bytes of every device's compute buffer, the host last; `bytes_parts` has the host's tensors by a Share's part."""
        sizes = [_aligned(a + n_tokens * b) for a, b in zip(self.fixed, self.per_token, strict=True)]
        for number, share in self.shares:
            sizes[number] = _aligned(share.of(bytes_parts))
        known = self._known.setdefault(n_tokens, {})  # where no weight is copied to, only tokens count
        for device, events in enumerate(self.events):
            if device not in known or device in self.sharing:
                known[device] = _peak(events, sizes)
        return tuple(known[device] for device in range(len(self.events)))


def _peak(events: Sequence[int], sizes: Sequence[int]) -> int:
    """Return what one device's buffer comes to."""
    arena = Arena()
    take, give_back = arena.take, arena.give_back
    addresses = [0] * len(sizes)
    for number in events:
        if number >= 0:
            addresses[number] = take(sizes[number])
        else:
            give_back(addresses[~number], sizes[~number])
    return arena.peak


def _aligned(size: int) -> int:
    return -(-size // ALIGNMENT) * ALIGNMENT


def program(graph: Graph, n_devices: int, *, pipeline: bool = False) -> Program:
    """Return what is allocated and given back for a graph of a batch of ANY_TOKENS.

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
    shares = {number: tensor.share for number, tensor in enumerate(record.owners) if tensor.share is not None}
    fixed, per_token = zip(*(in_tokens(tensor.size) for tensor in record.owners), strict=True)
    return Program(
        tuple(record.events),
        array("q", fixed),
        array("q", per_token),
        tuple(shares.items()),
        frozenset(record.owners[number].device for number in shares),
    )


def _assign(graph: Graph, host: int) -> None:
    """Choose a device for every node: fixed ones first, then the GPUs' neighborhoods, then the rest."""
    nodes = [node for node in graph.nodes if node.root is None]
    for node in nodes:
        if node.home is not None:
            node.device = node.home
    for backwards, skips_host in ((False, True), (True, True), (False, False), (True, False)):
        current = -1
        for node in reversed(nodes) if backwards else nodes:
            if node.device >= 0:
                current = -1 if skips_host and node.device == host else node.device
            elif current >= 0:
                node.device = current
    for tensor in graph.inputs:
        tensor.device = host
    for node in graph.nodes:
        for src in node.srcs:
            if src.external and src.home is not None:
                src.device = src.home
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
                copy = src.copies[home] = Tensor(src.size, share=src.share)
                copy.device = home
                inputs.append((src, copy))
                made.append(copy)
            node.srcs[i] = copy
        part.append(node)
    close()
    return steps, made


class _Record:
    """Walks over the steps and writes down what the allocator does; blocks are numbers of the tensors that they were taken for."""

    def __init__(self, n_devices: int) -> None:
        self.events = [array("l") for _ in range(n_devices)]
        self.owners: list[Tensor] = []
        self._devices: list[int] = []  # where each took its block: a tensor may pass it on

    def take(self, tensor: Tensor) -> int:
        self.owners.append(tensor)
        number = len(self.owners) - 1
        self.events[tensor.device].append(number)
        self._devices.append(tensor.device)
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
                    self.events[self._devices[owner.block]].append(~owner.block)
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
