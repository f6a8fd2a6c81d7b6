"""Estimate prefill and decode speed by roofline: bytes over bandwidth, products over TFLOP/s.

Every cost is a sum over the parts of a layout, so the same numbers say how fast a plan is and, in packing.py, which plan is fastest.

The host's products are priced by type and layout of weights where the machine has such rates (rates.py), the rest by the constants below.

The efficiencies are what llama.cpp reaches of the hardware's numbers. On the CPU alone decode came to 0.85 of the bandwidth bound; beside a GPU, which
it waits for twice a layer, to 0.5 (Mixtral 8x7B over an H200 and 16 cores, bench.gpu). Those of GPUs are usual figures for its CUDA backend;
with them prefill there came to 0.7 to 0.9 of the estimate. The range that is shown spans that uncertainty.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from typing import NamedTuple

from profiles.cost_arithmetic import plus, times
from profiles.layout import Layout
from profiles.machine import Machine
from profiles.memory import bytes_kv_layer, cells
from profiles.network import NetworkShare, Ways, least_change, network_seconds, network_share, ways
from profiles.placement import Placement
from profiles.rates import BITS_OF_TYPE, GB, tokens_at_once
from profiles.request import TOGETHER, WORK, Purpose, work_of
from profiles.shape import MATRICES, LayerShape, ModelShape

DECODE_EFFICIENCY = {"host": 0.85, "beside": 0.52, "gpu": 0.70}
PREFILL_EFFICIENCY = {"host": 1.0, "gpu": 0.35}
HALF_FILLED = 64  # tokens of a micro-batch at which a GPU reaches half of that: smaller ones leave units idle
MAPPED_LINK = 0.15  # of the link, for experts in a mapped file, which a GPU cannot fetch directly (measured: 0.1 to 0.2)
HOP = 40e-6  # seconds for one change between GPU and host or between GPUs, copies and waiting
LAYER_OVERHEAD = 8e-6  # seconds of kernel starts for one layer on a GPU
# the ends of the range that is shown, as shares of the estimate: from constants, and from rates that were measured here
LOW, HIGH = 0.7, 1.0
LOW_MEASURED, HIGH_MEASURED = 0.8, 1.2
TYPICAL_RATES = "typical rates of such a CPU"
REPACKED_DECODE = 1.3  # a repacked Q4_K decodes so much faster on the CPU, and prefills
REPACKED_PREFILL = 0.55  # so much slower (measured on true 8x7B layers)
# flash attention on a processor is arithmetic, not reading: this share of its products (2,000 tokens of context on true 8x7B layers)
FLASH_EFFICIENCY = 0.08


class DeviceRates(NamedTuple):
    """Seconds on one device: for a layer's attention (with its cache) and for an expert matrix, and what each byte of them adds."""

    layer: float = 0.0
    layer_byte: float = 0.0
    matrix: float = 0.0
    matrix_byte: float = 0.0
    output_byte: float = 0.0


@dataclass(frozen=True)
class Rates:
    """What a token costs, or a piece of work: by device (the host last), for a change of devices, for a byte that must come from disk.

    `by_type` has what a byte of an expert matrix costs on the host, for the types that it is known for; the same types in every Rates of a
    model on a machine. `ways` are those over a network to each device.
    """

    devices: tuple[DeviceRates, ...]
    hop: float
    missing_byte: float
    by_type: Mapping[str, float] = field(default_factory=dict)
    ways: Ways = ()

    def times(self, factor: float) -> "Rates":
        devices = tuple(times(device, factor) for device in self.devices)
        by_type = {name: seconds * factor for name, seconds in self.by_type.items()}
        ways = tuple(times(way, factor) for way in self.ways)
        return Rates(devices, self.hop * factor, self.missing_byte * factor, by_type, ways)

    def plus(self, other: "Rates") -> "Rates":
        devices = tuple(plus(a, b) for a, b in zip(self.devices, other.devices, strict=True))
        by_type = {name: seconds + other.by_type[name] for name, seconds in self.by_type.items()}
        ways = tuple(plus(a, b) for a, b in zip(self.ways, other.ways, strict=True))
        return Rates(devices, self.hop + other.hop, self.missing_byte + other.missing_byte, by_type, ways)

    @property
    def least_hop(self) -> float:
        """Return what a change of devices costs at the least: the planner's bounds and packing count no more than that."""
        return self.hop + least_change(self.ways)

    def attention(self, device: int, n_bytes: int) -> float:
        rates = self.devices[device]
        return rates.layer + rates.layer_byte * n_bytes

    def matrix(self, device: int, layer: LayerShape, number: int) -> float:
        """Return what one of a layer's matrices costs, by its place in MATRICES."""
        rates, n_bytes = self.devices[device], (layer.gate, layer.up, layer.down)[number]
        if device == len(self.devices) - 1 and (byte := self.by_type.get(layer.types[number])) is not None:
            return rates.matrix + byte * n_bytes
        return rates.matrix + rates.matrix_byte * n_bytes

    def seconds(self, shape: ModelShape, layout: Layout, bytes_missing: int = 0) -> float:
        """Sum up a layout; `bytes_missing` of the experts are not in memory."""
        total = self.hop * hops(layout) + self.missing_byte * bytes_missing + self.on_network(shape, layout)
        total += self.devices[layout.output].output_byte * shape.bytes_output
        for layer, home, experts in zip(shape.each_layer(), layout.attention, layout.experts, strict=True):
            total += self.attention(home, layer.attention)
            if layer.experts:
                total += sum(self.matrix(at, layer, number) for number, at in enumerate(experts))
        return total

    def on_network(self, shape: ModelShape, layout: Layout) -> float:
        """Return how much of that is the network's."""
        return network_seconds(self.ways, shape, layout)


def hops(layout: Layout) -> int:
    """Count the changes of devices on a token's way: between layers, and there and back where experts live elsewhere than their layer."""
    way: Sequence[int] = (layout.host, *layout.attention, layout.output, layout.host)
    aside = sum(set(e) != {home} for home, e in zip(layout.attention, layout.experts, strict=True))
    return sum(a != b for a, b in pairwise(way)) + 2 * aside


@dataclass(frozen=True)
class Estimate:
    """Tokens a second: of a prompt, of one text, and of TOGETHER texts that are written at once.

    `disk_seconds` is what reading experts from disk adds to every token, 0 when they are in memory. `low` and `high` are the ends of the
    range that is shown, as shares of a rate; `basis` says in words what the estimate rests on. `network` is None without workers.
    """

    decode: float
    prefill: float
    disk_seconds: float = 0.0
    together: float = 0.0
    low: float = LOW
    high: float = HIGH
    basis: str = "not measured"
    network: NetworkShare | None = None

    def ends(self, rate: float) -> tuple[float, float]:
        """Return the low and the high end of a rate's range."""
        return rate * self.low, rate * self.high

    def middle(self, rate: float) -> float:
        """Return the middle of a rate's range: the one number that is compared where a range is too much."""
        return sum(self.ends(rate)) / 2

    def shown(self, rate: float) -> str:
        """Write a rate as its range, whole from 100 on."""
        return " to ".join(f"{end:.0f}" if end >= 100 else f"{end:.1f}" for end in self.ends(rate))


def estimate(
    shape: ModelShape, machine: Machine, placement: Placement, layout: Layout, bytes_missing: int = 0
) -> Estimate:
    """Estimate a layout's rates; `bytes_missing` of the experts do not fit into host memory and come from disk."""
    decode, prefill = decode_rates(shape, machine, placement), prefill_rates(shape, machine, placement)
    basis, is_measured = _basis(shape, machine)
    low, high = (LOW_MEASURED, HIGH_MEASURED) if is_measured and not bytes_missing else (LOW, HIGH)
    return Estimate(
        1 / decode.seconds(shape, layout, bytes_missing),
        1 / prefill.seconds(shape, layout, bytes_missing),
        decode.missing_byte * bytes_missing,
        1 / decode_rates(shape, machine, placement, TOGETHER).seconds(shape, layout, bytes_missing),
        low,
        high,
        basis,
        network_share(
            shape,
            machine,
            layout,
            (decode.on_network(shape, layout), prefill.on_network(shape, layout)),
            cells(placement.n_ctx) // 2,
            placement.n_ubatch,
        ),
    )


def _basis(shape: ModelShape, machine: Machine) -> tuple[str, bool]:
    """Return in words what an estimate rests on, and whether that was measured for all that it needs."""
    origins = machine.rates.origins(shape.types)
    if not machine.rates.types or not shape.types:
        return Estimate.basis, False
    if "typical" in origins:
        words = "the profile's rates and typical ones" if "profile" in origins else TYPICAL_RATES
        return f"from {words}", False
    if "profile" in origins:
        others = ", typical ones for other types" if None in origins else ""
        return f"from the profile's rates{others}", not others and not machine.gpus
    if machine.gpus:
        return Estimate.basis, False
    busy = ", measured while other programs ran" if "busy" in origins else ""
    some = "partly " if None in origins else ""
    return f"{some}from this CPU's {'' if busy else 'measured '}rates{busy}", not some


def work_rates(shape: ModelShape, machine: Machine, placement: Placement, purpose: Purpose) -> Rates:
    """Return what one piece of work of that purpose costs: the planner's objective, in seconds."""
    work = work_of(purpose)
    prefill = prefill_rates(shape, machine, placement, work.read).times(work.read)
    at_once = TOGETHER if work.at_once > 1 else 1
    depth = None if purpose in WORK else work.read + work.write // 2  # a chat fills its context in the end
    return prefill.plus(decode_rates(shape, machine, placement, at_once, depth).times(work.write))


def decode_rates(
    shape: ModelShape, machine: Machine, placement: Placement, at_once: int = 1, depth: int | None = None
) -> Rates:
    """Return seconds a token: what each device reads of weights, shared by the texts that are written at once, and of a cache.

    `depth` is how many tokens are in the cache; half of the context where nothing is known.
    """
    share = 1 / at_once
    used = share * touched(shape, at_once)
    n_cells = cells(placement.n_ctx) // 2 if depth is None else min(depth, cells(placement.n_ctx))
    kv = bytes_kv_layer(shape, n_cells, placement.type_k, placement.type_v)

    def device(byte: float, overhead: float) -> DeviceRates:
        return DeviceRates(overhead, byte * share, 0.0, byte * used, byte * share)

    usual = machine.rates.usual
    host = usual.decode * GB * _host_decode(machine) / DECODE_EFFICIENCY["host"] if usual else 0.0
    host = host or machine.bandwidth * GB * _host_decode(machine)
    repacked = (
        min(host * REPACKED_DECODE, machine.bandwidth * GB) if _by_constants(machine, placement) else host
    )
    devices = [
        device(byte, LAYER_OVERHEAD * share + kv * byte)
        for byte in (1 / (gpu.bandwidth * GB * DECODE_EFFICIENCY["gpu"]) for gpu in machine.gpus)
    ]
    if machine.rates.attention:
        cache = _attention(shape, machine, placement, n_cells, several=False)
    elif placement.flash_attn:
        ops = n_cells * attention_operations(shape)
        cache = max(kv / host, ops / (FLASH_EFFICIENCY * machine.host_tflops * 1e12))
    else:
        cache = kv / host
    there = device(1 / repacked, cache)
    if at_once > 1:  # with several texts a byte that was read may wait for arithmetic
        layer_ops, matrix_ops = _operations_a_byte(shape)
        rate = machine.host_tflops * 1e12
        there = there._replace(
            layer_byte=max(there.layer_byte, layer_ops / rate),
            matrix_byte=max(there.matrix_byte, matrix_ops / rate),
        )
    there, by_type = _by_type(shape, machine, placement, at_once, there)
    network = ways(shape, machine, at_once, n_cells)
    return Rates((*devices, there), HOP * share, used / (machine.disk * GB), by_type, network)


def prefill_rates(
    shape: ModelShape, machine: Machine, placement: Placement, read: int | None = None
) -> Rates:
    """Return seconds a token of a prompt of `read` tokens, by default of a full micro-batch.

    With GPUs micro-batches are taken as full even then: they amortize copies, and some prompts are longer than usual.
    """
    tokens = placement.n_ubatch if read is None or machine.gpus else min(read, placement.n_ubatch)
    depth = min(read or tokens, placement.n_ctx) / 2
    attention_ops, matrix_ops = operations(shape)
    a_matrix = tokens_at_once(tokens, shape.n_expert, shape.n_expert_used)
    filled, filled_experts = (PREFILL_EFFICIENCY["gpu"] * n / (n + HALF_FILLED) for n in (tokens, a_matrix))
    matrix_read = _mean_matrix(shape) * touched(shape, tokens) / tokens
    slower = REPACKED_PREFILL if _by_constants(machine, placement) else 1.0
    usual = machine.rates.usual
    host_rate = (
        (usual.experts[-1] if usual else machine.host_tflops * PREFILL_EFFICIENCY["host"]) * 1e12 * slower
    )
    # many thin experts are bound by what is read of them
    matrices = [
        max(
            matrix_ops / (gpu.tflops * 1e12 * filled_experts),
            matrix_read / (gpu.bandwidth * GB * DECODE_EFFICIENCY["gpu"]),
        )
        for gpu in machine.gpus
    ]
    devices = [
        DeviceRates(attention_ops / (gpu.tflops * 1e12 * filled), 0.0, matrix)
        for gpu, matrix in zip(machine.gpus, matrices, strict=True)
    ]
    layer_byte, matrix_byte = (ops / host_rate for ops in _operations_a_byte(shape))
    cache = _attention(shape, machine, placement, depth, several=True)
    there = DeviceRates(cache, layer_byte, matrix_byte=matrix_byte)
    there, by_type = _by_type(shape, machine, placement, tokens, there)
    offload = next((i for i, gpu in enumerate(machine.gpus) if gpu.computes_host_weights), None)
    if offload is not None and placement.op_offload and tokens >= 32:
        # llama.cpp copies those of the host's experts that are used to that GPU, whether it is faster or not
        link = machine.gpus[offload].link * (MAPPED_LINK if placement.load_mode == "mmap" else 1.0)
        copied = touched(shape, tokens) / (link * GB) / tokens
        there = there._replace(matrix=matrices[offload], matrix_byte=copied)
        by_type = dict.fromkeys(by_type, copied)
    there = there._replace(output_byte=0.0)  # only the last token's
    # the last layer's experts too see only tokens whose logits are wanted (llama.cpp, inp_out_ids); a share of every layer's is as good
    seen = 1 - 1 / shape.n_layer
    devices = [
        one._replace(matrix=one.matrix * seen, matrix_byte=one.matrix_byte * seen)
        for one in (*devices, there)
    ]
    by_type = {name: seconds * seen for name, seconds in by_type.items()}
    network = ways(shape, machine, tokens, cells(placement.n_ctx) // 2, is_prompt=True)
    return Rates(tuple(devices), HOP / tokens, 1 / (machine.disk * GB) / tokens, by_type, network)


def _attention(
    shape: ModelShape, machine: Machine, placement: Placement, depth: float, *, several: bool
) -> float:
    """Return the host's seconds a token for the products with one layer's cache; 0 where no rate is known."""
    known = machine.rates.attention
    if known is None:
        return 0.0
    rate = (known.flash if placement.flash_attn else known.plain)[several]
    return depth * attention_operations(shape) / (rate * 1e12)


def attention_operations(shape: ModelShape) -> float:
    """Return a token's operations with one layer's cache, for each cell that it sees."""
    return 2.0 * shape.n_head * (shape.head_dim_k + shape.head_dim_v)


def touched(shape: ModelShape, n_tokens: float) -> float:
    """Return the share of the experts that so many tokens use together, each choosing evenly and alone; 1 for a dense model."""
    return 1 - (1 - shape.n_expert_used / shape.n_expert) ** n_tokens if shape.n_expert else 1.0


def _mean_matrix(shape: ModelShape) -> float:
    """Return the bytes of a matrix, with all its experts, in the mean of the layers that have some."""
    layers = [layer.experts for layer in shape.each_layer() if layer.experts]
    return sum(layers) / (len(MATRICES) * max(1, len(layers)))


def operations(shape: ModelShape) -> tuple[float, float]:
    """Return a token's operations with what every token reads of a layer, and with one of its expert matrices."""
    n_dense = shape.n_layer_dense
    fixed = (shape.n_layer - n_dense) * shape.fixed_elements(is_dense=False) + n_dense * shape.fixed_elements(
        is_dense=True
    )
    return 2.0 * fixed / shape.n_layer, 2.0 * shape.n_embd * shape.expert_width * max(1, shape.n_expert_used)


def _operations_a_byte(shape: ModelShape) -> tuple[float, float]:
    """Return the same for each byte: the host's arithmetic is priced by bytes, as the more bits a weight has, the longer it is unpacked."""
    fixed, matrix = operations(shape)
    of_fixed = sum(layer.attention for layer in shape.each_layer()) / shape.n_layer
    return fixed / max(1, of_fixed), matrix / max(1, _mean_matrix(shape))


def _host_decode(machine: Machine) -> float:
    return DECODE_EFFICIENCY["beside" if machine.gpus else "host"]


def _by_constants(machine: Machine, placement: Placement) -> bool:
    """Return whether repacking is priced by constants: beside a GPU nothing is repacked, and a machine with rates knows what is."""
    return placement.repack and not machine.gpus and not machine.rates.types


def _by_type(
    shape: ModelShape, machine: Machine, placement: Placement, n_tokens: int, unknown: DeviceRates
) -> tuple[DeviceRates, dict[str, float]]:
    """Return the host's seconds for a byte of attention and output, and of an expert matrix by type, in a batch of `n_tokens`.

    Types without rates keep those of `unknown`. Beside a GPU nothing is repacked, and waiting for it costs what it does there.
    """
    repacked = placement.repack and not machine.gpus
    waiting = DECODE_EFFICIENCY["host"] / _host_decode(machine) if n_tokens <= TOGETHER else 1.0
    dense, matrix = {}, {}
    for one in machine.rates.types:
        if one.type not in shape.all_types:
            continue
        rates, bits = (one.repacked if repacked else None) or one.plain, BITS_OF_TYPE[one.type]
        dense[one.type] = waiting * rates.seconds_byte(bits, n_tokens)
        matrix[one.type] = waiting * rates.seconds_byte(
            bits, n_tokens, n_expert=shape.n_expert, n_used=shape.n_expert_used
        )

    def mean(types: Sequence[tuple[str, int]], default: float) -> float:
        n_bytes = sum(n for _, n in types)
        return sum(n * dense.get(name, default) for name, n in types) / n_bytes if n_bytes else default

    layer_byte = mean(shape.attention_types, unknown.layer_byte)
    output_byte = mean(shape.output_types, unknown.output_byte)
    return unknown._replace(layer_byte=layer_byte, output_byte=output_byte), matrix
