"""The ledger: the bytes that a layout needs on every device, part by part."""

from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from functools import lru_cache

from profiles.dimensions import Dimensions
from profiles.graph.model import Graph
from profiles.graph.nodes import QUANTIZED_KV, BatchShape, LayerHome
from profiles.layout import Layout
from profiles.machine import Machine
from profiles.memory import bytes_kv_layer, bytes_logits, bytes_process, cells
from profiles.placement import Placement
from profiles.schedule import Program, program
from profiles.shape import MATRICES, ModelShape

OFFLOAD_MIN_BATCH = 32  # GGML_OP_OFFLOAD_MIN_BATCH: from here on a GPU computes with weights of the host
PARTS = ("experts", "attention", "output", "embedding", "kv", "compute", "staging", "process")


@dataclass(frozen=True)
class Account:
    """One device's line of the ledger, all in bytes.

    `staging` is what a GPU needs beside `compute` to work with the host's experts; `process` the program
    itself with its tokenizer and the rows of logits that drafts and labels want.
    """

    device: str
    bytes_free: int
    experts: int = 0
    attention: int = 0
    output: int = 0
    embedding: int = 0
    kv: int = 0
    compute: int = 0
    staging: int = 0
    process: int = 0

    @property
    def weights(self) -> int:
        return self.experts + self.attention + self.output + self.embedding

    @property
    def need(self) -> int:
        return sum(getattr(self, part) for part in PARTS)

    @property
    def left(self) -> int:
        """Bytes that stay free; negative when it does not fit."""
        return self.bytes_free - self.need


def accounts(
    shape: ModelShape, machine: Machine, placement: Placement, layout: Layout, *, staging_apart: bool = True
) -> tuple[Account, ...]:
    """Return the account of every GPU, then the host's. `placement` says context, batch and types; the layout where things are.

    Without `staging_apart` the staging counts as compute buffers: half the work where only the need matters.
    """
    host = layout.host
    staged = compute_of(shape, machine, placement, layout)
    plain = compute_of(shape, machine, placement, layout, staging=False) if staging_apart else staged
    sums = [dict.fromkeys(("experts", "attention", "output", "kv"), 0) for _ in range(host + 1)]
    n_cells = cells(placement.n_ctx)
    for layer, home, experts in zip(shape.each_layer(), layout.attention, layout.experts, strict=True):
        sums[home]["attention"] += layer.attention
        sums[home]["kv"] += bytes_kv_layer(shape, n_cells, placement.type_k, placement.type_v)
        for matrix, at in zip(MATRICES, experts, strict=True):
            sums[at]["experts"] += getattr(layer, matrix)
    if not (layout.output == host and shape.tied):
        sums[layout.output]["output"] += shape.bytes_output
    placed = sum(line[part] for line in sums[:host] for part in ("experts", "attention", "output"))
    if shape.tied and layout.output != host:
        placed -= shape.bytes_output  # the embedding is there twice
    named = sum(sums[host][part] for part in ("experts", "attention", "output"))
    rows = [
        Account(
            gpu.name,
            gpu.bytes_free,
            **sums[i],
            compute=min(plain[i], staged[i]),
            staging=max(0, staged[i] - plain[i]),
        )
        for i, gpu in enumerate(machine.gpus)
    ]
    rows.append(
        Account(
            "host",
            machine.bytes_free,
            **sums[host],
            embedding=shape.bytes_weights - placed - named,
            compute=staged[host] + bytes_logits(shape, placement.n_sequences),
            process=bytes_process(shape, placement),
        )
    )
    return tuple(rows)


def compute_of(
    shape: ModelShape, machine: Machine, placement: Placement, layout: Layout, *, staging: bool = True
) -> Sequence[int]:
    """Return the compute buffers of all devices, host last; without `staging` as they would be without op_offload."""
    found = _replayed(shape, machine, placement, layout, staging=staging)
    if shape.measured is None:
        return found
    return shape.measured.corrected(compute_key(placement, layout, staging=staging), found)


def compute_key(placement: Placement, layout: Layout, *, staging: bool = True) -> Hashable:
    """Return what the compute buffers of a model on a machine depend on."""
    sizes = placement.n_ctx, placement.n_batch, placement.n_ubatch
    return (
        *sizes,
        placement.flash_attn,
        placement.type_k,
        placement.type_v,
        placement.op_offload,
        layout,
        staging,
    )


def _replayed(
    shape: ModelShape, machine: Machine, placement: Placement, layout: Layout, *, staging: bool
) -> Sequence[int]:
    key = shape.of_a_layer
    n_kv = cells(placement.n_ctx)
    n_tokens = min(placement.n_ubatch, placement.n_batch, n_kv)
    cuda = machine.gpus and machine.gpus[0].kind in ("cuda", "rocm")
    quantized = bool({placement.type_k, placement.type_v} & QUANTIZED_KV)
    # CUDA's prefill kernels read the cache in 16 bits, so a quantized one is converted beside the result (fattn.cu)
    extra = 0
    if cuda and quantized and placement.flash_attn:
        extra = 2 * n_kv * shape.n_head_kv * (shape.head_dim_k + (0 if shape.mla else shape.head_dim_v))
    batch = BatchShape(n_kv, placement.flash_attn, placement.type_k, placement.type_v, extra)
    pipeline = len(machine.gpus) > 1 and layout.n_gpu_layers == shape.n_layer + 1 and not layout.has_overrides
    offload = None
    if staging and placement.op_offload and n_tokens >= OFFLOAD_MIN_BATCH:
        offload = next((i for i, gpu in enumerate(machine.gpus) if gpu.computes_host_weights), None)
    on_host = layout.host in layout.attention or any(layout.host in experts for experts in layout.experts)
    if offload is None or not on_host:
        return _peaks(key, batch, n_tokens, layout, None, pipeline, ())
    return _peaks(key, batch, n_tokens, layout, offload, pipeline, _largest(shape))


def _largest(shape: ModelShape) -> tuple[int, ...]:
    """Return the bytes of PARTS at their largest, so that layers of different types cannot need more than an offloaded matrix is counted with."""
    layers, n_dense = shape.each_layer(), shape.n_layer_dense
    matrices = (max(getattr(layer, matrix) for layer in layers) for matrix in MATRICES)
    attention = (
        max((layer.attention for layer in some), default=0) for some in (layers[n_dense:], layers[:n_dense])
    )
    return (*matrices, *attention)


@lru_cache(maxsize=4096)
def _peaks(
    key: Dimensions,
    batch: BatchShape,
    n_tokens: int,
    layout: Layout,
    offload: int | None,
    pipeline: bool,
    bytes_parts: tuple[int, ...],
) -> Sequence[int]:
    # further layers of the same kind need no more: the allocator does the same again and again
    found = _program(key, batch, layout.shortened(key.n_layer_dense), offload, pipeline)
    return found.peaks(n_tokens, bytes_parts)


@lru_cache(maxsize=1024)
def _program(
    key: Dimensions, batch: BatchShape, layout: Layout, offload: int | None, pipeline: bool
) -> Program:
    homes = zip(layout.attention, layout.experts, strict=True)
    layers = [LayerHome(home, *experts) for home, experts in homes]
    graph = Graph(key, batch, layers, layout.output, layout.host, offload)
    return program(graph, layout.host + 1, pipeline=pipeline)


def expectation(ledger: Sequence[Account]) -> dict[str, dict[str, int]]:
    """Return bytes of weights, kv and compute (with staging) by device; the host is "host"."""
    return {
        account.device: {
            "weights": account.weights,
            "kv": account.kv,
            "compute": account.compute + account.staging,
        }
        for account in ledger
    }


def needs_of(ledger: Sequence[Account]) -> dict[str, int]:
    """Return all bytes that a plan takes of each device; the host is "host"."""
    return {account.device: account.need for account in ledger}
