"""A roofline estimate of prefill and decode: bytes over bandwidth, products over TFLOP/s. Estimates, never promises.

The efficiencies are what llama.cpp reaches of the hardware's numbers: on the CPU decode came to 0.85 of the bandwidth bound (measured);
those of GPUs are usual figures for its CUDA backend and are not measured here. The range that is shown spans that uncertainty.
"""

from dataclasses import dataclass
from itertools import pairwise

from profiles.layout import Layout
from profiles.machine import Machine
from profiles.memory import bytes_kv_layer, cells
from profiles.placement import Placement
from profiles.shape import MATRICES, ModelShape

GB = 1e9
DECODE_EFFICIENCY = {"host": 0.85, "gpu": 0.70}
PREFILL_EFFICIENCY = {"host": 1.0, "gpu": 0.35}
HOP = 40e-6  # seconds for one change between GPU and host or between GPUs, copies and waiting
LAYER_OVERHEAD = 8e-6  # seconds of kernel starts for one layer on a GPU
LOW = 0.7  # the low end of the range that is shown, as a share of the estimate
REPACKED_DECODE = 1.3  # a repacked Q4_K decodes so much faster on the CPU, and prefills
REPACKED_PREFILL = 0.55  # so much slower (measured on true 8x7B layers)


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
    decode, prefill = _decode(shape, machine, placement, layout), _prefill(shape, machine, placement, layout)
    disk = 0.0
    if bytes_missing:
        read = bytes_missing * (_used(shape) if shape.n_expert else 1.0)
        disk = read / (machine.disk * GB)
        decode += disk
        prefill += bytes_missing / (machine.disk * GB) / placement.n_ubatch
    return Estimate(1 / decode, 1 / prefill, disk)


def _used(shape: ModelShape) -> float:
    return shape.n_expert_used / shape.n_expert if shape.n_expert else 1.0


def _hops(layout: Layout) -> int:
    """Count how often a token changes devices on its way."""
    way = [layout.host]
    for home, experts in zip(layout.attention, layout.experts, strict=True):
        way += [home, *experts]
    way += [layout.output, layout.host]
    return sum(a != b for a, b in pairwise(way))


def _decode(shape: ModelShape, machine: Machine, placement: Placement, layout: Layout) -> float:
    """Give seconds a token: what each device reads of weights and of a half-full cache."""
    read = [0.0] * (layout.host + 1)
    kv = bytes_kv_layer(shape, cells(placement.n_ctx) // 2, placement.type_k, placement.type_v)
    for layer, home, experts in zip(shape.each_layer(), layout.attention, layout.experts, strict=True):
        read[home] += layer.attention + kv
        for matrix, at in zip(MATRICES, experts, strict=True):
            read[at] += getattr(layer, matrix) * _used(shape)
    read[layout.output] += shape.bytes_output
    seconds = 0.0
    for gpu, n_bytes in zip(machine.gpus, read, strict=False):
        seconds += n_bytes / (gpu.bandwidth * GB * DECODE_EFFICIENCY["gpu"])
    faster = REPACKED_DECODE if placement.repack and not machine.gpus else 1.0
    ceiling = machine.bandwidth * GB * DECODE_EFFICIENCY["host"]
    seconds += read[layout.host] / (
        ceiling if faster == 1.0 else min(ceiling * faster, machine.bandwidth * GB)
    )
    on_gpu = sum(home != layout.host for home in layout.attention)
    return seconds + _hops(layout) * HOP + on_gpu * LAYER_OVERHEAD


def _prefill(shape: ModelShape, machine: Machine, placement: Placement, layout: Layout) -> float:
    """Give seconds a token of a long prompt, in batches of `n_ubatch`."""
    tokens = placement.n_ubatch
    offload = next((gpu for gpu in machine.gpus if gpu.computes_host_weights), None)
    if not placement.op_offload or tokens < 32:
        offload = None
    matrix_ops = 2.0 * shape.n_embd * shape.n_ff * max(1, shape.n_expert_used)
    head = shape.n_head * shape.head_dim_k
    attention_ops = 2.0 * shape.n_embd * (2 * head + 2 * shape.n_head_kv * shape.head_dim_k)
    slower = REPACKED_PREFILL if placement.repack and not machine.gpus else 1.0
    host_rate = machine.host_tflops * 1e12 * PREFILL_EFFICIENCY["host"] * slower

    def compute(device: int, ops: float) -> float:
        if device == layout.host:
            return ops / host_rate
        return ops / (machine.gpus[device].tflops * 1e12 * PREFILL_EFFICIENCY["gpu"])

    seconds = 0.0
    for layer, home, experts in zip(shape.each_layer(), layout.attention, layout.experts, strict=True):
        seconds += compute(home, attention_ops)
        for matrix, at in zip(MATRICES, experts, strict=True):
            here = compute(at, matrix_ops)
            if at == layout.host and offload is not None:
                copied = getattr(layer, matrix) / (offload.link * GB) / tokens
                there = matrix_ops / (offload.tflops * 1e12 * PREFILL_EFFICIENCY["gpu"]) + copied
                seconds += there  # llama.cpp does so whether it is faster or not
            else:
                seconds += here
    return seconds + _hops(layout) * HOP / tokens
