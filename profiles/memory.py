"""How many bytes a model takes beside its weights: pure arithmetic."""

from profiles.shape import ModelShape

# bytes of one block and elements in it, for the types that a KV cache may have (ggml-common.h)
KV_TYPES = {"f32": (4, 1), "f16": (2, 1), "bf16": (2, 1), "q8_0": (34, 32), "q4_0": (18, 32)}


def bytes_kv(shape: ModelShape, n_ctx: int, type_k: str = "f16", type_v: str = "f16") -> int:
    """Give the bytes of the KV cache for `n_ctx` tokens: every layer keeps one key and one value per KV head and token."""

    def row(head_dim: int, kv_type: str) -> int:
        size, elements = KV_TYPES[kv_type]
        return shape.n_head_kv * head_dim * size // elements

    return shape.n_layer * n_ctx * (row(shape.head_dim_k, type_k) + row(shape.head_dim_v, type_v))


def bytes_compute(shape: ModelShape, n_ubatch: int, n_ctx: int) -> int:
    """Give the bytes of llama.cpp's compute buffer with flash attention.

    n_ubatch * (12*k*n_ff + 16*n_embd + 2*n_ctx) with k experts a token, fitted to llama.cpp's own log for 8x7B, 8x22B and 7B on
    the CPU backend; the logits of one ubatch take n_vocab floats where that is more.
    """
    used = max(1, shape.n_expert_used)
    layer = 12 * used * shape.n_ff + 16 * shape.n_embd + 2 * n_ctx
    return n_ubatch * max(layer, 4 * shape.n_vocab)
