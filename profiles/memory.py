"""The memory of a model beside its weights: pure arithmetic."""

from profiles.dimensions import Dimensions
from profiles.placement import Placement
from profiles.shape import ModelShape

MIB, GIB = 1 << 20, 1 << 30
CELLS = 256  # llama.cpp rounds a context up to a multiple of this (GGML_PAD in llama-context.cpp)
BYTES_PROCESS = 256 << 20  # Python, FastAPI and llama.cpp themselves, measured on Linux

# bytes of one block and elements in it, for the types that a KV cache may have (ggml-common.h)
KV_TYPES = {
    "f32": (4, 1),
    "f16": (2, 1),
    "bf16": (2, 1),
    "q8_0": (34, 32),
    "q5_1": (24, 32),
    "q5_0": (22, 32),
    "q4_1": (20, 32),
    "q4_0": (18, 32),
    "iq4_nl": (18, 32),
}


def kv_types_of(shape: Dimensions) -> tuple[str, ...]:
    """Return the cache types that a model can have: a head must be whole blocks (llama-context.cpp refuses it otherwise)."""
    return tuple(
        name
        for name, (_, block) in KV_TYPES.items()
        if shape.head_dim_k % block == 0 and shape.head_dim_v % block == 0
    )


def cells(n_ctx: int) -> int:
    """Return the cells of the cache that llama.cpp makes for a context of `n_ctx` tokens."""
    return -(-n_ctx // CELLS) * CELLS


def bytes_cache(n_ctx: int, n_head_kv: int, head_dim: int, kv_type: str) -> int:
    """Return the bytes of one layer's keys, or of its values."""
    size, elements = KV_TYPES[kv_type]
    return n_ctx * (n_head_kv * head_dim * size // elements)


def bytes_kv_layer(shape: ModelShape, n_ctx: int, type_k: str = "f16", type_v: str = "f16") -> int:
    """Return the bytes of one layer's cache: a key and a value per KV head and token; with latent attention no values (llama-kv-cache.cpp, has_v)."""
    keys = bytes_cache(n_ctx, shape.n_head_kv, shape.head_dim_k, type_k)
    values = 0 if shape.mla else bytes_cache(n_ctx, shape.n_head_kv, shape.head_dim_v, type_v)
    return keys + values if shape.measured is None else round((keys + values) * shape.measured.kv)


def bytes_kv(shape: ModelShape, n_ctx: int, type_k: str = "f16", type_v: str = "f16") -> int:
    """Return the bytes of the KV cache for `n_ctx` tokens."""
    return shape.n_layer * bytes_kv_layer(shape, n_ctx, type_k, type_v)


def bytes_logits(shape: Dimensions, n_rows: int) -> int:
    """Return the bytes of llama.cpp's output buffer on the host, which after a load has one row of logits for every sequence."""
    return 4 * shape.n_vocab * n_rows


def bytes_process(shape: ModelShape, placement: Placement) -> int:
    """Return what the host process takes that llama.cpp does not report at a load: itself, its tokenizer, and the rows of logits that come later."""
    later = placement.n_outputs - placement.n_sequences
    return BYTES_PROCESS + shape.bytes_tokenizer + bytes_logits(shape, later)
