"""A layout: the device of every part of every layer, also in llama.cpp's terms."""

import re
from collections.abc import Sequence
from dataclasses import dataclass

from profiles.dimensions import Dimensions
from profiles.machine import Machine
from profiles.placement import Placement
from profiles.shape import MATRICES

Experts = tuple[int, int, int]  # the devices of gate, up and down


PERIODS = (1, 2, 3, 4)  # layers that repeat themselves together
REPEATS = 4  # of them that say as much as any number of them (ledger.py)


@dataclass(frozen=True)
class Layout:
    """Devices are numbers: 0, 1, ... the GPUs, `host` host memory. `attention` goes with norms, router and the layer's cache."""

    host: int
    attention: tuple[int, ...]
    experts: tuple[Experts, ...]
    output: int

    @property
    def n_gpu_layers(self) -> int:
        """Count as llama.cpp does: the output layer first, then the last layers."""
        return sum(device != self.host for device in (*self.attention, self.output))

    @property
    def has_overrides(self) -> bool:
        """Return whether some experts are on another device than their layer."""
        return any(set(e) != {a} for a, e in zip(self.attention, self.experts, strict=True))

    @property
    def uses_host(self) -> bool:
        """Return whether the attention or the experts of some layer are in host memory."""
        return self.host in self.attention or any(self.host in experts for experts in self.experts)

    def shortened(self, n_apart: int = 0) -> "Layout":
        """Return the same with fewer layers: of what repeats itself, one layer or a few in turn, REPEATS times are left.

        The first `n_apart` layers are of another kind than the rest, and all kept.
        """
        layers = list(zip(self.attention, self.experts, strict=True))
        kept: list[tuple[int, Experts]] = layers[:n_apart]
        at = n_apart
        while at < len(layers):
            period, n = max(
                ((p, _repeats(layers, at, p)) for p in PERIODS), key=lambda one: one[0] * (one[1] - REPEATS)
            )
            n_kept = period * min(n, REPEATS)
            kept += layers[at : at + n_kept]
            at += period * n if n > REPEATS else n_kept
        attention, experts = zip(*kept, strict=True)
        return Layout(self.host, attention, experts, self.output)

    def tensor_split(self) -> tuple[float, ...]:
        """Return the layers (with the output layer) of each GPU; empty for one GPU or none."""
        if self.host < 2 or not self.n_gpu_layers:
            return ()
        placed = (*self.attention, self.output)
        return tuple(float(placed.count(device)) for device in range(self.host))

    def overrides(self, machine: Machine, shape: Dimensions) -> tuple[tuple[str, str], ...]:
        """Return tensor overrides (regular expression, buffer type) for experts that are on another device than their layer."""
        names, suffix = (
            ("gate_up", "", "down") if shape.is_fused else MATRICES,
            "_exps" if shape.n_expert else "",
        )
        groups: dict[tuple[tuple[str, ...], int], list[int]] = {}
        for layer, (home, experts) in enumerate(zip(self.attention, self.experts, strict=True)):
            for device in sorted(set(experts) - {home}):
                parts = tuple(m for m, at in zip(names, experts, strict=True) if at == device and m)
                groups.setdefault((parts, device), []).append(layer)
        found = []
        for (parts, device), layers in groups.items():
            matrices = parts[0] if len(parts) == 1 else f"({'|'.join(parts)})"
            everywhere = len(layers) == len(self.attention) - shape.n_layer_dense
            numbers = r"\d+" if everywhere else f"({'|'.join(map(str, layers))})"
            name = "CPU" if device == self.host else machine.gpus[device].name
            found.append((rf"blk\.{numbers}\.ffn_{matrices}{suffix}\.", name))
        return tuple(found)


def _repeats(layers: Sequence[object], at: int, period: int) -> int:
    """Count how often the `period` layers from `at` on follow one another."""
    n = 1
    end = at + period
    while end + period <= len(layers) and layers[at : at + period] == layers[end : end + period]:
        n, end = n + 1, end + period
    return n


def on_host(shape: Dimensions, host: int) -> Layout:
    """Return the layout with everything in host memory."""
    return Layout(host, (host,) * shape.n_layer, ((host,) * 3,) * shape.n_layer, host)


def layout_of(shape: Dimensions, placement: Placement, machine: Machine) -> Layout:
    """Read a placement back: what llama.cpp makes of it on that machine (llama-model.cpp, load_tensors)."""
    host, n = len(machine.gpus), shape.n_layer
    n_gpu_layers = min(placement.n_gpu_layers, n + 1) if host else 0
    shares = placement.tensor_split or tuple(float(gpu.bytes_free) for gpu in machine.gpus)
    start = n + 1 - n_gpu_layers

    def device(layer: int) -> int:
        if layer < start:
            return host
        reached, share = 0.0, (layer - start) / n_gpu_layers * sum(shares)
        for i, part in enumerate(shares):
            reached += part
            if reached > share:
                return i
        return len(shares) - 1

    attention = tuple(device(layer) for layer in range(n))
    names = {gpu.name: i for i, gpu in enumerate(machine.gpus)} | {"CPU": host}
    rules = [(re.compile(pattern), names[buft]) for pattern, buft in placement.tensor_overrides]
    suffix = "_exps" if shape.n_expert else ""
    gate, up, down = ("gate_up", "gate_up", "down") if shape.is_fused else MATRICES

    def matrix(layer: int, name: str) -> int:
        if layer < shape.n_layer_dense:
            return attention[layer]
        tensor = f"blk.{layer}.ffn_{name}{suffix}.weight"
        return next((at for rule, at in rules if rule.search(tensor)), attention[layer])

    experts: Sequence[Experts] = [(matrix(i, gate), matrix(i, up), matrix(i, down)) for i in range(n)]
    return Layout(host, attention, tuple(experts), device(n))
