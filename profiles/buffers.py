"""The compute buffers that llama.cpp allocates for a layout: its graph is replayed once, for every batch, context and file type."""

from collections.abc import Hashable, Sequence
from functools import lru_cache

from profiles.dimensions import Dimensions
from profiles.graph.model import Graph
from profiles.graph.nodes import QUANTIZED_KV, BatchShape, LayerHome
from profiles.layout import Layout
from profiles.machine import Machine
from profiles.memory import cells
from profiles.placement import Placement
from profiles.schedule import Program, program
from profiles.shape import MATRICES, ModelShape

OFFLOAD_MIN_BATCH = 32  # GGML_OP_OFFLOAD_MIN_BATCH: from here on a GPU computes with weights of the host


class Buffers:
    """The compute buffers of one model on one machine, in bytes.

    `parts` are the host's weights at their largest, by nodes.PARTS, so that layers of different types cannot need more than an offloaded matrix is
    counted with.
    """

    def __init__(self, shape: ModelShape, machine: Machine, *, is_typical: bool = False) -> None:
        """Take a model; with `is_typical` for layouts of any number of layers that are all like its largest layer with experts."""
        layers, n_dense = shape.each_layer(), shape.n_layer_dense
        dense, others = layers[:n_dense], layers[n_dense:]
        if is_typical:
            dense, others = (), others or layers
        matrices = (max(getattr(layer, matrix) for layer in (*dense, *others)) for matrix in MATRICES)
        attention = (max((layer.attention for layer in some), default=0) for some in (others, dense))
        self.parts = (*matrices, *attention)
        self.gpus = machine.gpus
        self.offload = next((i for i, gpu in enumerate(machine.gpus) if gpu.computes_host_weights), None)
        self._measured = shape.measured
        self._programs = programs_of(shape.of_any_layer if is_typical else shape.of_a_layer)
        # CUDA's prefill kernels read the cache in 16 bits, so a quantized one is converted beside the result (fattn.cu)
        self._copies = bool(machine.gpus) and machine.gpus[0].kind in ("cuda", "rocm")
        self._cell = 2 * shape.n_head_kv * (shape.head_dim_k + (0 if shape.mla else shape.head_dim_v))

    def of(self, placement: Placement, layout: Layout, *, staging: bool = True) -> Sequence[int]:
        """Return the buffers of all devices, host last; without `staging` as they would be without op_offload."""
        found = self._replayed(placement, layout, staging=staging)
        if self._measured is None:
            return found
        return self._measured.corrected(compute_key(placement, layout, staging=staging), found)

    def _replayed(self, placement: Placement, layout: Layout, *, staging: bool) -> Sequence[int]:
        n_kv = cells(placement.n_ctx)
        n_tokens = min(placement.n_ubatch, placement.n_batch, n_kv)
        type_k, type_v, flash = placement.type_k, placement.type_v, placement.flash_attn
        is_copied = self._copies and flash and bool({type_k, type_v} & QUANTIZED_KV)
        batch = BatchShape(flash, type_k, type_v, self._cell if is_copied else 0)
        is_offloaded = staging and placement.op_offload and n_tokens >= OFFLOAD_MIN_BATCH and layout.uses_host
        offload = self.offload if is_offloaded else None
        found = self._programs.of(batch, layout, offload)
        return found.peaks(n_tokens, n_kv, () if offload is None else self.parts)


def compute_key(placement: Placement, layout: Layout, *, staging: bool = True) -> Hashable:
    """Return what the compute buffers of a model on a machine depend on."""
    sizes = placement.n_ctx, placement.n_batch, placement.n_ubatch
    types = placement.flash_attn, placement.type_k, placement.type_v
    return (*sizes, *types, placement.op_offload, layout, staging)


class Programs:
    """What the allocator does for the layouts of a model, whatever its file type; each is worked out once."""

    def __init__(self, dimensions: Dimensions) -> None:
        self._dimensions = dimensions
        self.of = lru_cache(maxsize=1024)(self._of)
        self._short = lru_cache(maxsize=1024)(self._made)

    def _of(self, batch: BatchShape, layout: Layout, offload: int | None) -> Program:
        """Return what happens for a batch; `offload` is the GPU that computes with the host's weights."""
        is_pipeline = (
            layout.host > 1 and layout.n_gpu_layers > len(layout.attention) and not layout.has_overrides
        )
        # further layers of the same kind need no more: the allocator does the same again and again
        return self._short(batch, layout.shortened(self._dimensions.n_layer_dense), offload, is_pipeline)

    def _made(self, batch: BatchShape, layout: Layout, offload: int | None, is_pipeline: bool) -> Program:
        homes = zip(layout.attention, layout.experts, strict=True)
        layers = [LayerHome(home, *experts) for home, experts in homes]
        graph = Graph(self._dimensions, batch, layers, layout.output, layout.host, offload)
        return program(graph, layout.host + 1, pipeline=is_pipeline)


programs_of = lru_cache(maxsize=32)(Programs)
