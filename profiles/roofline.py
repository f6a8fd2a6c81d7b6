"""The roofline: the most tokens per second that the memory and the arithmetic of a layout's devices allow.

Decode reads every weight that a step uses and the cache of each text once, from the memory where it lies, one device after another. Prefill
is bound by its products, or by reading the weights of each micro-batch, whichever is more. Nothing is added for copies, waiting, or starts.
"""

from collections.abc import Sequence

from profiles.layout import Layout
from profiles.machine import Machine
from profiles.memory import bytes_kv_layer
from profiles.placement import Placement
from profiles.rates import GB, TERA
from profiles.shape import ModelShape
from profiles.speed import DeviceRates, Rates, attention_operations, operations, touched

MIN_OFFLOADED = 32  # tokens of a micro-batch from which llama.cpp copies the host's weights to a GPU that can compute with them (op_offload)
Bandwidths = Sequence[float]  # GB/s of each device of a layout, the host last


def decode_roof(
    shape: ModelShape,
    placement: Placement,
    layout: Layout,
    bandwidths: Bandwidths,
    n_cells: int,
    n_batch: int = 1,
) -> float:
    """Return the bound of decode in tok/s, of `n_batch` texts together that have `n_cells` tokens each."""
    return n_batch / _reading(shape, placement, layout, bandwidths, n_cells, n_batch, n_batch)


def prefill_roof(
    shape: ModelShape,
    machine: Machine,
    placement: Placement,
    layout: Layout,
    bandwidths: Bandwidths,
    n_tokens: int,
    depth: int = 0,
) -> float | None:
    """Return the bound of a prompt of `n_tokens` after `depth` others, in tok/s; None where the TFLOP/s of a device are not known.

    The host has the best rate that its products were measured with, a GPU the peak rate of its card; those of a worker are not known.
    Where a GPU computes with the host's weights, they come over its link once for each micro-batch.
    """
    together = min(n_tokens, placement.n_ubatch)
    streaming = next((gpu for gpu in machine.gpus if gpu.computes_host_weights), None)
    if not placement.op_offload or together < MIN_OFFLOADED:
        streaming = None
    host, used = streaming.tflops if streaming else best_products(machine, shape), devices_of(layout)
    if any(gpu.kind == "rpc" for i, gpu in enumerate(machine.gpus) if i in used):
        return None
    if host is None and layout.host in used:
        return None
    fixed, matrix = operations(shape)
    cache = (depth + n_tokens / 2) * attention_operations(shape)
    devices = [
        DeviceRates(layer=(fixed + cache) / (rate * TERA), matrix=matrix / (rate * TERA))
        for rate in (*(gpu.tflops for gpu in machine.gpus), host or 1.0)
    ]
    # the last layer's products with experts are those of the last token only
    computing = Rates(tuple(devices), 0.0, 0.0).seconds(shape, layout) * (1 - 1 / shape.n_layer)
    if streaming:
        bandwidths = (*bandwidths[:-1], streaming.link)
    reading = _reading(shape, placement, layout, bandwidths, depth + n_tokens // 2, 1, together) / together
    return 1 / max(computing, reading)


def best_products(machine: Machine, shape: ModelShape) -> float | None:
    """Return the highest measured TFLOP/s of the host's products with the types of a model; None where none is known."""
    rates = [
        rate
        for one in machine.rates.types
        if one.type in shape.all_types
        for layout in one.layouts
        for rate in (*layout.experts, *layout.dense)
    ]
    return max(rates, default=None)


def _reading(
    shape: ModelShape,
    placement: Placement,
    layout: Layout,
    bandwidths: Bandwidths,
    n_cells: int,
    n_texts: int,
    n_tokens: int,
) -> float:
    """Return the seconds in which a step of `n_tokens` reads its weights and the cache of `n_texts` texts."""
    kv = n_texts * bytes_kv_layer(shape, n_cells, placement.type_k, placement.type_v)
    share = touched(shape, n_tokens)
    devices = [
        DeviceRates(kv / (rate * GB), 1 / (rate * GB), 0.0, share / (rate * GB), 1 / (rate * GB))
        for rate in bandwidths
    ]
    return Rates(tuple(devices), 0.0, 0.0).seconds(shape, layout)


def devices_of(layout: Layout) -> set[int]:
    """Return the numbers of the devices that have some of a layout's weights."""
    return {layout.output, *layout.attention, *(at for experts in layout.experts for at in experts)}
