"""The attention of a layer: usual attention, and latent attention with absorbed projections (llama-graph.cpp, models/deepseek2.cpp)."""

from collections.abc import Callable

from profiles.dimensions import Dimensions, Mla
from profiles.graph.nodes import QUANTIZED_KV, Builder, LayerHome, Tensor
from profiles.memory import bytes_cache

V_ROTATION = 64  # llama.cpp rotates the quantized values of a head in groups of 64

Matrix = Callable[[int], Tensor]  # from its elements


class Inputs:
    """What the host fills for all layers: positions, the cells to write, the mask, rotations of a quantized cache, scales of queries."""

    def __init__(self, graph: Builder) -> None:
        shape, batch = graph.shape, graph.batch
        tokens = batch.n_tokens
        self.positions = graph.input(4 * tokens)
        self.temperature = graph.input(4 * tokens) if shape.temperature_length else None
        self.k_ids = graph.input(8 * tokens)
        if shape.mla is None:
            n_v = 1 if batch.flash_attn else shape.n_head_kv * shape.head_dim_v
            self.v_ids = graph.input(8 * tokens * n_v)
        self.mask = graph.input(tokens * batch.n_kv * (2 if batch.flash_attn else 4))
        self.k_rotation = self.v_rotation = None
        if shape.mla is None and rotated(batch.type_k, shape.head_dim_k):
            self.k_rotation = graph.input(4 * k_rotation(shape) ** 2)
        if shape.mla is None and rotated(batch.type_v, shape.head_dim_v):
            self.v_rotation = graph.input(4 * V_ROTATION**2)


def attention(graph: Builder, inputs: Inputs, x: Tensor, home: LayerHome, matrix: Matrix) -> Tensor:
    """Add the attention of one layer; `matrix` makes a weight of so many elements."""
    shape, batch = graph.shape, graph.batch
    n_q, n_out = (shape.n_head * dim for dim in (shape.head_dim_k, shape.head_dim_v))
    n_k, n_v = (shape.n_head_kv * dim for dim in (shape.head_dim_k, shape.head_dim_v))
    size_q, size_out = graph.rows(n_q), graph.rows(n_out)
    norm = graph.norm(x, home)

    def project(n: int) -> Tensor:
        return graph.view(graph.node(graph.rows(n), [matrix(shape.n_embd * n), norm]))

    q = graph.node(size_q, [project(n_q), inputs.positions])
    if inputs.temperature is not None:
        q = graph.node(size_q, [q, inputs.temperature], over=(0,))
    q = _rotate(graph, q, inputs.k_rotation)
    v = project(n_v)
    v = _rotate(graph, v, inputs.v_rotation)
    k = project(n_k)
    k = _rotate(graph, graph.node(k.size, [k, inputs.positions]), inputs.k_rotation)
    cache_k, cache_v = (
        Tensor(bytes_cache(batch.n_kv, shape.n_head_kv, dim, kv_type), [], home=home.attention, external=True)
        for dim, kv_type in ((shape.head_dim_k, batch.type_k), (shape.head_dim_v, batch.type_v))
    )
    graph.node(0, [cache_k, graph.view(k), inputs.k_ids], view=True, home=home.attention)
    graph.node(0, [cache_v, graph.view(v), inputs.v_ids], view=True, home=home.attention)
    seen = graph.view(graph.view(q))
    if batch.flash_attn:
        out = graph.node(size_out + batch.flash_extra, [seen, cache_k, cache_v, inputs.mask])
        out = _rotate(graph, graph.view(out, size_out), inputs.v_rotation)
    else:
        scores = graph.node(4 * batch.n_kv * batch.n_tokens * shape.n_head, [cache_k, seen])
        scores = graph.node(scores.size, [scores, inputs.mask], over=(0,))
        out = _rotate(graph, graph.node(size_out, [cache_v, scores]), inputs.v_rotation)
        out = graph.node(size_out, [graph.view(out)])
    return graph.node(graph.row, [matrix(n_out * shape.n_embd), out])


def latent_attention(
    graph: Builder, inputs: Inputs, mla: Mla, x: Tensor, home: LayerHome, matrix: Matrix
) -> Tensor:
    """Add the latent attention of one layer: queries are brought into the latent space, so all heads share one key and value."""
    shape, batch = graph.shape, graph.batch
    n_head, rank, width = shape.n_head, mla.kv_lora_rank, mla.kv_lora_rank + mla.n_rot
    rows = graph.rows
    norm = graph.norm(x, home)
    n_q = n_head * mla.head_dim_k
    if mla.q_lora_rank:
        low = graph.node(rows(mla.q_lora_rank), [matrix(shape.n_embd * mla.q_lora_rank), norm])
        low = graph.norm(low, home, mla.q_lora_rank)
        q = graph.node(rows(n_q), [matrix(mla.q_lora_rank * n_q), low])
    else:
        q = graph.node(rows(n_q), [matrix(shape.n_embd * n_q), norm])
    q = graph.view(q)
    nope = graph.view(graph.view(q, rows(n_head * mla.head_dim_nope)))
    absorbed = graph.node(rows(n_head * rank), [matrix(n_head * rank * mla.head_dim_nope), nope])
    absorbed = graph.view(absorbed)
    rope = graph.node(rows(n_head * mla.n_rot), [graph.view(q, rows(n_head * mla.n_rot)), inputs.positions])
    q = graph.node(rows(n_head * width), [absorbed, rope])
    if inputs.temperature is not None:
        q = graph.node(q.size, [q, inputs.temperature], over=(0,))
    both = graph.node(rows(width), [matrix(shape.n_embd * width), norm])
    v = graph.view(graph.norm(graph.view(both, rows(rank)), home, rank))
    k_rope = graph.node(rows(mla.n_rot), [graph.view(both, rows(mla.n_rot)), inputs.positions])
    k = graph.node(rows(width), [v, k_rope])
    cache = Tensor(bytes_cache(batch.n_kv, 1, width, batch.type_k), [], home=home.attention, external=True)
    graph.node(0, [cache, graph.view(k), inputs.k_ids], view=True, home=home.attention)
    n_v = n_head * mla.head_dim_v

    def decompressed(out: Tensor) -> Tensor:
        return graph.node(rows(n_v), [matrix(n_head * rank * mla.head_dim_v), out])

    if batch.flash_attn:
        seen = graph.view(graph.view(q))
        out = graph.node(rows(n_head * rank) + batch.flash_extra, [seen, cache, cache, inputs.mask])
        out = decompressed(graph.view(out, rows(n_head * rank)))
    else:
        values = graph.node(bytes_cache(batch.n_kv, 1, rank, batch.type_k), [cache])
        seen = graph.view(graph.view(q))
        scores = graph.node(4 * batch.n_kv * batch.n_tokens * n_head, [cache, seen])
        scores = graph.node(scores.size, [scores, inputs.mask], over=(0,))
        out = decompressed(graph.node(rows(n_head * rank), [values, scores]))
    out = graph.node(rows(n_v), [graph.view(out)])
    return graph.node(graph.row, [matrix(n_v * shape.n_embd), out])


def _rotate(graph: Builder, x: Tensor, rotation: Tensor | None) -> Tensor:
    return x if rotation is None else graph.view(graph.node(x.size, [rotation, graph.view(x)]))


def rotated(kv_type: str, head_dim: int) -> bool:
    """Return whether llama.cpp rotates what it stores in a cache of that type (llama-kv-cache.cpp: quantized, heads of 64s)."""
    return kv_type in QUANTIZED_KV and head_dim % 64 == 0


def k_rotation(shape: Dimensions) -> int:
    """Return the side of the rotation of keys: the largest power of two that divides a head (llama-kv-cache.cpp)."""
    side = 64
    while shape.head_dim_k % (2 * side) == 0:
        side *= 2
    return side


__all__ = ["Inputs", "Matrix", "attention", "latent_attention"]
