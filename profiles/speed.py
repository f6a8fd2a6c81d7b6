"""A roofline estimate of prefill and decode: bytes over bandwidth, products over TFLOP/s. Estimates, never promises.

Every cost is a sum over the parts of a layout, so the same numbers say how fast a plan is and, in packing.py, which plan is fastest.

The efficiencies are what llama.cpp reaches of the hardware's numbers. On the CPU alone decode came to 0.85 of the bandwidth bound; beside a GPU, which
it waits for twice a layer, to 0.5 (Mixtral 8x7B over an H200 and 16 cores, bench.gpu). Those of GPUs are usual figures for its CUDA backend;
with them prefill there came to 0.7 to 0.9 of the estimate. The range that is shown spans that uncertainty.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

from profiles.layout import Layout
from profiles.machine import Machine
from profiles.memory import bytes_kv_layer, cells
from profiles.placement import Placement
from profiles.request import WORK, Purpose
from profiles.shape import MATRICES, ModelShape

GB = 1e9
DECODE_EFFICIENCY = {"host": 0.85, "beside": 0.52, "gpu": 0.70}
PREFILL_EFFICIENCY = {"host": 1.0, "gpu": 0.35}
HALF_FILLED = 64  # tokens of a micro-batch at which a GPU reaches half of that: smaller ones leave units idle
MAPPED_LINK = 0.15  # of the link, for experts in a mapped file, which a GPU cannot fetch by itself (measured: 0.1 to 0.2)
HOP = 40e-6  # seconds for one change between GPU and host or between GPUs, copies and waiting
LAYER_OVERHEAD = 8e-6  # seconds of kernel starts for one layer on a GPU
LOW = 0.7  # the low end of the range that is shown, as a share of the estimate
REPACKED_DECODE = 1.3  # a repacked Q4_K decodes so much faster on the CPU, and prefills
REPACKED_PREFILL = 0.55  # so much slower (measured on true 8x7B layers)
# flash attention on a processor is arithmetic, not reading: this share of its products (2,000 tokens of context on true 8x7B layers)
FLASH_EFFICIENCY = 0.08


@dataclass(frozen=True)
class DeviceRates:
    """Seconds on one device: for a layer's attention (with its cache) and for an expert matrix, and what each byte of them adds."""

    layer: float = 0.0
    layer_byte: float = 0.0
    matrix: float = 0.0
    matrix_byte: float = 0.0
    output_byte: float = 0.0

    def times(self, factor: float) -> "DeviceRates":
        return DeviceRates(
            self.layer * factor,
            self.layer_byte * factor,
            self.matrix * factor,
            self.matrix_byte * factor,
            self.output_byte * factor,
        )

    def plus(self, other: "DeviceRates") -> "DeviceRates":
        return DeviceRates(
            self.layer + other.layer,
            self.layer_byte + other.layer_byte,
            self.matrix + other.matrix,
            self.matrix_byte + other.matrix_byte,
            self.output_byte + other.output_byte,
        )


@dataclass(frozen=True)
class Rates:
    """What a token costs, or a piece of work: by device (the host last), for a change of devices, for a byte that must come from disk."""

    devices: tuple[DeviceRates, ...]
    hop: float
    missing_byte: float

    def times(self, factor: float) -> "Rates":
        devices = tuple(device.times(factor) for device in self.devices)
        return Rates(devices, self.hop * factor, self.missing_byte * factor)

    def plus(self, other: "Rates") -> "Rates":
        devices = tuple(a.plus(b) for a, b in zip(self.devices, other.devices, strict=True))
        return Rates(devices, self.hop + other.hop, self.missing_byte + other.missing_byte)

    def attention(self, device: int, n_bytes: int) -> float:
        rates = self.devices[device]
        return rates.layer + rates.layer_byte * n_bytes

    def matrix(self, device: int, n_bytes: int) -> float:
        rates = self.devices[device]
        return rates.matrix + rates.matrix_byte * n_bytes

    def seconds(self, shape: ModelShape, layout: Layout, bytes_missing: int = 0) -> float:
        """Sum up a layout; `bytes_missing` of the experts are not in memory."""
        total = self.hop * hops(layout) + self.missing_byte * bytes_missing
        total += self.devices[layout.output].output_byte * shape.bytes_output
        for layer, home, experts in zip(shape.each_layer(), layout.attention, layout.experts, strict=True):
            total += self.attention(home, layer.attention)
            for matrix, at in zip(MATRICES, experts, strict=True):
                total += self.matrix(at, getattr(layer, matrix))
        return total


def hops(layout: Layout) -> int:
    """Count the changes of devices on a token's way: between layers, and there and back where experts live elsewhere than their layer."""
    way: Sequence[int] = (layout.host, *layout.attention, layout.output, layout.host)
    aside = sum(set(e) != {home} for home, e in zip(layout.attention, layout.experts, strict=True))
    return sum(a != b for a, b in pairwise(way)) + 2 * aside


@dataclass(frozen=True)
class Estimate:
    """Tokens a second; `disk_seconds` is what reading experts from disk adds to every token, 0 when they are in memory."""

    decode: float
    prefill: float
    disk_seconds: float = 0.0

    def shown(self, rate: float) -> str:
        """Write a rate as its range, whole from 100 on."""
        return " to ".join(f"{end:.0f}" if end >= 100 else f"{end:.1f}" for end in (rate * LOW, rate))


def estimate(
    shape: ModelShape, machine: Machine, placement: Placement, layout: Layout, bytes_missing: int = 0
) -> Estimate:
    """Estimate a layout's rates; `bytes_missing` of the experts do not fit into main memory and come from disk."""
    decode, prefill = decode_rates(shape, machine, placement), prefill_rates(shape, machine, placement)
    return Estimate(
        1 / decode.seconds(shape, layout, bytes_missing),
        1 / prefill.seconds(shape, layout, bytes_missing),
        decode.missing_byte * bytes_missing,
    )


def work_rates(shape: ModelShape, machine: Machine, placement: Placement, purpose: Purpose) -> Rates:
    """Return what one piece of work of that purpose costs: the planner's objective, in seconds."""
    read, write = WORK[purpose]
    prefill = prefill_rates(shape, machine, placement).times(read)
    return prefill.plus(decode_rates(shape, machine, placement).times(write))


def decode_rates(shape: ModelShape, machine: Machine, placement: Placement) -> Rates:
    """Return seconds a token: what each device reads of weights and of a half-full cache."""
    used = shape.n_expert_used / shape.n_expert if shape.n_expert else 1.0
    n_cells = cells(placement.n_ctx) // 2
    kv = bytes_kv_layer(shape, n_cells, placement.type_k, placement.type_v)

    def device(byte: float, overhead: float) -> DeviceRates:
        return DeviceRates(kv * byte + overhead, byte, 0.0, byte * used, byte)

    host = machine.bandwidth * GB * DECODE_EFFICIENCY["beside" if machine.gpus else "host"]
    if placement.repack and not machine.gpus:
        host = min(host * REPACKED_DECODE, machine.bandwidth * GB)
    devices = [
        device(1 / (gpu.bandwidth * GB * DECODE_EFFICIENCY["gpu"]), LAYER_OVERHEAD) for gpu in machine.gpus
    ]
    flash = 0.0
    if placement.flash_attn:
        ops = 2.0 * n_cells * shape.n_head * (shape.head_dim_k + shape.head_dim_v)
        flash = max(0.0, ops / (FLASH_EFFICIENCY * machine.host_tflops * 1e12) - kv / host)
    return Rates((*devices, device(1 / host, flash)), HOP, used / (machine.disk * GB))


def prefill_rates(shape: ModelShape, machine: Machine, placement: Placement) -> Rates:
    """Return seconds a token of a long prompt, in batches of `n_ubatch`."""
    tokens = placement.n_ubatch
    matrix_ops = 2.0 * shape.n_embd * shape.n_ff * max(1, shape.n_expert_used)
    head = shape.n_head * shape.head_dim_k
    attention_ops = 2.0 * shape.n_embd * (2 * head + 2 * shape.n_head_kv * shape.head_dim_k)
    filled = PREFILL_EFFICIENCY["gpu"] * tokens / (tokens + HALF_FILLED)
    slower = REPACKED_PREFILL if placement.repack and not machine.gpus else 1.0
    host_rate = machine.host_tflops * 1e12 * PREFILL_EFFICIENCY["host"] * slower
    rates = [gpu.tflops * 1e12 * filled for gpu in machine.gpus] + [host_rate]
    devices = [DeviceRates(attention_ops / rate, 0.0, matrix_ops / rate) for rate in rates]
    # the host's arithmetic is priced by bytes: the more bits a weight has, the longer a processor unpacks it
    n_bytes = sum(layer.experts for layer in shape.each_layer())
    per_byte = len(MATRICES) * shape.n_layer * matrix_ops / max(1, n_bytes)
    devices[-1] = DeviceRates(attention_ops / host_rate, 0.0, 0.0, per_byte / host_rate)
    offload = next((i for i, gpu in enumerate(machine.gpus) if gpu.computes_host_weights), None)
    if offload is not None and placement.op_offload and tokens >= 32:
        # llama.cpp copies the host's experts to that GPU whether it is faster or not
        link = machine.gpus[offload].link * (MAPPED_LINK if placement.load_mode == "mmap" else 1.0)
        copied = 1 / (link * GB) / tokens
        devices[-1] = DeviceRates(attention_ops / host_rate, 0.0, matrix_ops / rates[offload], copied)
    return Rates(tuple(devices), HOP / tokens, 1 / (machine.disk * GB) / tokens)
