"""Check the hyperparameters of a GGUF: every number that llama.cpp asserts, divides by or allocates for, by architecture.

The rules are those of the pinned llama.cpp: llama-model.cpp (load_hparams), llama-graph.cpp and models/{llama,mistral3,deepseek2}.cpp.
"""

from math import isfinite
from typing import Any

from mixcli.errors import IntegrityError
from profiles.dimensions import LATENT
from quantize.ggml_types import GGUFValueType as Kind
from quantize.sources.gguf_header import GgufHeader, LazyArray
from quantize.wording import counted, shown

MAX_LAYERS, MAX_EXPERTS = 512, 1024
MAX_SHARED = 64  # shared experts of a layer; models have one or two
MIN_CONTEXT = 64  # tokens; a chat template alone takes about half of them
ROPE_SCALINGS = ("none", "linear", "yarn", "longrope")
GATINGS = 4  # llama_expert_gating_func_type, from softmax = 1 on

_PER_LAYER = (
    "attention.head_count", "attention.head_count_kv", "feed_forward_length", "expert_used_count", "expert_feed_forward_length",
)  # fmt: skip
# (key, least, greatest): beyond them a model computes NaN, or says nothing that its weights know; 0 is "none" where `least` is 0
_FLOATS = (
    ("rope.freq_base", 1.0, 1e15), ("rope.scaling.attn_factor", 1e-3, 1e3), ("rope.scaling.yarn_beta_fast", 0.0, 1e6),
    ("rope.scaling.yarn_beta_slow", 0.0, 1e6), ("rope.scaling.yarn_log_multiplier", 0.0, 1e3), ("attention.temperature_scale", 0.0, 1e3),
    ("expert_weights_scale", 0.0, 1e3), ("rope.scaling.factor", 0.0, 1e6), ("rope.scale_linear", 0.0, 1e6),
)  # fmt: skip
_FACTORS = ("rope.scaling.factor", "rope.scale_linear")  # that are divided by
MIN_FACTOR = 1e-3
MAX_EPSILON = 0.1  # of a norm; models have 1e-5 and 1e-6
# llama_context::graph_max_nodes: a graph has so many nodes at most, for each tensor of the model; an expert that is used takes two of each layer
MIN_NODES, NODES_PER_TENSOR = 1024, 8
LAYER_NODES, LATENT_LAYER_NODES = (
    56,
    96,
)  # of a layer beside its experts, rather more than any has (Mixtral: 50 without flash attention)


class Reader:
    """Reads hyperparameters; every error names the key and its value."""

    def __init__(self, header: GgufHeader, name: str) -> None:
        self._header, self._name = header, name

    @property
    def architecture(self) -> str:
        return self._header.architecture

    def refuse(self, key: str, rule: str) -> IntegrityError:
        value = self._header.get(self.key(key))
        found = "missing" if value is None else shown(value, 60)
        return IntegrityError(
            f"{self._name} is not a valid model: {self.key(key)} is {found}; {rule}; use another file of this model"
        )

    def key(self, key: str) -> str:
        return f"{self._header.architecture}.{key}"

    def whole(self, key: str, least: int, greatest: int, default: int | None = None) -> int:
        """Return a whole number, or the one that a value per layer repeats."""
        value: Any = self._header.get(self.key(key), default)
        stored = self._header.metadata.get(self.key(key))
        if isinstance(value, LazyArray):
            value = self._repeated(key, value)
        elif stored is not None and stored.type != Kind.UINT32:
            raise self.refuse(key, f"it has type {stored.type.name} and must be UINT32")
        if isinstance(value, bool) or not isinstance(value, int) or not least <= value <= greatest:
            raise self.refuse(key, f"it must be a whole number from {least:,} to {greatest:,}")
        return value

    def exact(self, key: str, value: int, why: str) -> None:
        """Check that a key has the one value that other keys leave it."""
        if self.whole(key, 0, (1 << 32) - 1) != value:
            raise self.refuse(key, f"it must be {value:,}, {why}")

    def _repeated(self, key: str, layers: LazyArray) -> object:
        n_layer = self._header.get(self.key("block_count"))
        if key not in _PER_LAYER or layers.item not in (Kind.INT32, Kind.UINT32) or len(layers) != n_layer:
            raise self.refuse(
                key, "it must be one whole number" + (f", or {n_layer} of them" if key in _PER_LAYER else "")
            )
        if any(n != layers[0] for n in layers):
            raise self.refuse(key, "it must be equal in all layers")
        return layers[0]

    def between(self, key: str, least: float, greatest: float) -> float:
        """Return a number between two others; `least` where the key is missing."""
        value = self.number(key, least)
        if not least <= value <= greatest:
            raise self.refuse(key, f"it must be from {least:g} to {greatest:g}")
        return value

    def number(self, key: str, default: float | None = None) -> float:
        value: Any = self._header.get(self.key(key), default)
        stored = self._header.metadata.get(self.key(key))
        if stored is not None and stored.type != Kind.FLOAT32:
            raise self.refuse(key, f"it has type {stored.type.name} and must be FLOAT32")
        if isinstance(value, bool) or not isinstance(value, int | float) or not isfinite(value) or value < 0:
            raise self.refuse(key, "it must be finite and at least 0")
        return float(value)

    def flag(self, key: str) -> bool:
        """Return a boolean; False where the key is missing."""
        value = self._header.get(self.key(key), False)
        if not isinstance(value, bool):
            raise self.refuse(key, "it must be true or false")
        return value


def check_hyperparameters(header: GgufHeader, name: str) -> None:
    """Check what llama.cpp asserts about the hyperparameters; IntegrityError with one sentence."""
    read = Reader(header, name)
    n_layer = read.whole("block_count", 1, MAX_LAYERS)
    n_embd = read.whole("embedding_length", 1, 1 << 20)
    read.whole("feed_forward_length", 1, 1 << 24)
    n_ctx = read.whole("context_length", MIN_CONTEXT, 1 << 31)
    epsilon = "attention.layer_norm_rms_epsilon"
    if not 0 < read.number(epsilon) <= MAX_EPSILON:  # 0 divides by zero where a token is all zeros
        raise read.refuse(epsilon, f"it must be above 0 and at most {MAX_EPSILON:g}")
    for key, least, greatest in _FLOATS:
        if 0 < read.between(key, least, greatest) < MIN_FACTOR and key in _FACTORS:
            raise read.refuse(key, f"it must be 0 (none), or from {MIN_FACTOR:g}")
    if not header.get(read.key("attention.causal"), True):
        raise read.refuse("attention.causal", "it must be true: other models do not write text")
    if header.get(read.key("rope.scaling.type"), "linear") not in ROPE_SCALINGS:
        raise read.refuse("rope.scaling.type", f"it must be one of {', '.join(ROPE_SCALINGS)}")
    n_head = read.whole("attention.head_count", 1, 1 << 16)
    n_expert = _check_experts(read)
    _check_graph(read, n_layer, len(header.tensors))
    if read.architecture in LATENT:
        _check_latent_attention(read)
        _check_latent_layers(read, n_layer, n_expert)
    else:
        _check_heads(read, n_embd, n_head)
        read.whole("nextn_predict_layers", 0, n_layer - 1, 0)
    _check_temperature(read, n_ctx)


def _check_experts(read: Reader) -> int:
    n_expert = read.whole("expert_count", 0, MAX_EXPERTS, 0)
    read.whole("expert_used_count", 1 if n_expert else 0, n_expert, 0)
    n_group = read.whole("expert_group_count", 0, max(n_expert - 1, 0), 0)
    if n_group > 1:  # asserted in llama_model_base::load_hparams
        if n_expert % n_group:
            raise read.refuse("expert_group_count", f"it must divide the {n_expert} experts")
        read.whole("expert_group_used_count", 1, n_group - 1)
    return n_expert


def _check_graph(read: Reader, n_layer: int, n_tensors: int) -> None:
    """Check that the graph of a mixture has no more nodes than llama.cpp makes room for: else ggml ends the process."""
    n_used = read.whole("expert_used_count", 0, MAX_EXPERTS, 0)
    beside = LATENT_LAYER_NODES if read.architecture in LATENT else LAYER_NODES
    room = max(MIN_NODES, NODES_PER_TENSOR * n_tensors) // n_layer - beside
    if 2 * n_used > room:
        raise read.refuse(
            "expert_used_count",
            f"llama.cpp computes at most {max(0, room // 2)} experts for each token of a model with {counted(n_layer, 'layer')}",
        )


def _check_heads(read: Reader, n_embd: int, n_head: int) -> None:
    n_head_kv = read.whole("attention.head_count_kv", 1, n_head, n_head)
    if n_head % n_head_kv:
        raise read.refuse("attention.head_count_kv", f"it must divide the {n_head} heads")
    head_dim = read.whole("attention.key_length", 1, 1 << 16, max(n_embd // n_head, 1))
    if read.whole("attention.value_length", 1, 1 << 16, max(n_embd // n_head, 1)) != head_dim:
        raise read.refuse("attention.value_length", f"it must equal the key length, {head_dim}")
    if read.whole("rope.dimension_count", 1, 1 << 16, head_dim) != head_dim or head_dim % 2:
        raise read.refuse("rope.dimension_count", f"it must be even and equal the head size, {head_dim}")


def _check_latent_attention(read: Reader) -> None:
    """Check multi-head latent attention: what the cache has must follow from the ranks."""
    kv_lora_rank = read.whole("attention.kv_lora_rank", 1, 1 << 16)
    n_rot = read.whole("rope.dimension_count", 2, 1 << 16)
    if n_rot % 2:
        raise read.refuse("rope.dimension_count", "it must be even")
    read.whole("attention.key_length_mla", n_rot + 1, 1 << 16)
    read.whole("attention.value_length_mla", 1, 1 << 16)
    read.exact("attention.key_length", kv_lora_rank + n_rot, "kv_lora_rank and rope.dimension_count together")
    read.exact("attention.value_length", kv_lora_rank, "the kv_lora_rank")
    read.exact("attention.head_count_kv", 1, "as latent attention has one key and value for all heads")
    read.whole("attention.q_lora_rank", 0, 1 << 16)


def _check_latent_layers(read: Reader, n_layer: int, n_expert: int) -> None:
    """Check the leading dense layers, the experts' widths and the router of a deepseek2 model."""
    n_dense = read.whole("leading_dense_block_count", 0, n_layer, 0)
    read.whole("expert_feed_forward_length", 1, 1 << 24)
    n_shared = read.whole("expert_shared_count", 0, MAX_SHARED)
    if n_dense < n_layer and not n_expert:
        raise read.refuse(
            "expert_count", f"it must be at least 1, as only {n_dense} of {n_layer} layers are dense"
        )
    if n_dense < n_layer and not n_shared:
        raise read.refuse("expert_shared_count", "it must be at least 1")
    read.whole("expert_gating_func", 0, GATINGS, 0)
    read.flag("expert_weights_norm")


def _check_temperature(read: Reader, n_ctx: int) -> None:
    """Check the scale of queries by position: the length after which it grows is divided by."""
    if read.architecture == "llama" or not read.number("attention.temperature_scale", 0.0):
        return
    if read.architecture in LATENT:
        read.whole("attention.temperature_length", 1, 1 << 31)
    else:
        read.whole("rope.scaling.original_context_length", 1, 1 << 31, n_ctx)
