"""The dimensions of a model: what its header says of its graph, without a byte of its weights."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from functools import cached_property

from profiles.errors import BadModel, shown

LATENT = ("mistral4", "deepseek2")  # architectures with multi-head latent attention
ARCHITECTURES = ("llama", "mistral3", *LATENT)  # whose graph and tensors are known here
# counts of layers for which llama.cpp projects queries directly, whatever q_lora_rank says (models/deepseek2.cpp: the lite models)
LITE_LAYERS = (26, 27)
LITE_LAYERS_AND_VOCABULARY = (48, 128256)
# and for which its gate is a sigmoid where the file does not name one
GLM_LAYERS = (47, 48)
GLM_VOCABULARY = 154880


@dataclass(frozen=True)
class Mla:
    """Multi-head latent attention: one latent of `kv_lora_rank` elements a token stands for the keys and values of all heads.

    `q_lora_rank` is 0 where queries are projected directly. `n_rot` elements of a key carry the position and are stored beside the
    latent. `head_dim_k` and `head_dim_v` are a head's elements as it attends; `head_dim_k` counts the `n_rot`.
    """

    q_lora_rank: int
    kv_lora_rank: int
    n_rot: int
    head_dim_k: int
    head_dim_v: int

    @property
    def head_dim_nope(self) -> int:
        """Return the elements of a key without position."""
        return self.head_dim_k - self.n_rot


@dataclass(frozen=True)
class Router:
    """How a layer chooses its experts, as far as that adds operations to the graph.

    `gating` is llama.cpp's number: 1 softmax, 2 sigmoid, 3 softmax over the chosen ones, 4 square root of softplus. Weights are multiplied by
    `scale` where that is not 1. `n_groups` above 1 chooses among the experts of the best `n_groups_used` groups only.
    """

    gating: int = 1
    normalizes: bool = True
    scale: float = 1.0
    is_biased: bool = False
    n_groups: int = 0
    n_groups_used: int = 0


SOFTMAX_ROUTER = Router()  # Mixtral's


@dataclass(frozen=True, kw_only=True)
class Dimensions:
    """The dimensions of one model, in counts and elements.

    `n_expert` is 0 for a dense model. `head_dim_k` and `head_dim_v` are what the cache holds of one KV head; with `mla` that is the latent with its
    position, and the latent, of a single KV head. `n_ff` is the width of dense layers, `n_ff_expert` of one expert, `n_ff_shared` of all
    shared experts of a layer together. The first `n_layer_dense` layers of a mixture have a dense feed-forward part. Queries are scaled
    by position from each `temperature_length` tokens on, unless that is 0. `is_fused` says that the gate and up matrices of the experts are one tensor.
    """

    n_layer: int
    n_embd: int
    n_ff: int
    n_head: int
    n_head_kv: int
    head_dim_k: int
    head_dim_v: int
    n_expert: int
    n_expert_used: int
    n_vocab: int
    n_ctx_train: int
    architecture: str = "llama"
    n_layer_dense: int = 0
    n_ff_expert: int = 0
    n_ff_shared: int = 0
    mla: Mla | None = None
    router: Router = SOFTMAX_ROUTER
    temperature_length: int = 0
    is_fused: bool = False

    @cached_property
    def of_a_layer(self) -> "Dimensions":
        """Return the dimensions alone, without the counts of layers and of the context: what models of different sizes share."""
        alone = Dimensions(**{field.name: getattr(self, field.name) for field in fields(Dimensions)})
        return replace(alone, n_layer=0, n_ctx_train=0, temperature_length=min(1, self.temperature_length))

    @cached_property
    def of_any_layer(self) -> "Dimensions":
        """Return the same of a model without leading dense layers."""
        return replace(self.of_a_layer, n_layer_dense=0)

    @property
    def attention_elements(self) -> int:
        """Return the elements of the matrices of a layer's attention."""
        if (mla := self.mla) is None:
            return self.n_embd * (self.n_head + self.n_head_kv) * (self.head_dim_k + self.head_dim_v)
        n_q = self.n_head * mla.head_dim_k
        q = mla.q_lora_rank * (self.n_embd + n_q) if mla.q_lora_rank else self.n_embd * n_q
        kv = self.n_embd * (mla.kv_lora_rank + mla.n_rot)
        absorbed = self.n_head * mla.kv_lora_rank * (mla.head_dim_nope + mla.head_dim_v)
        return q + kv + absorbed + self.n_head * mla.head_dim_v * self.n_embd

    def fixed_elements(self, *, is_dense: bool) -> int:
        """Return the elements of the matrices that every token meets in a layer, a leading dense one or another: attention and shared experts, or the dense part."""
        return self.attention_elements + 3 * self.n_embd * (self.n_ff if is_dense else self.n_ff_shared)

    @property
    def expert_width(self) -> int:
        """Return the width of one expert, or of a dense layer where there are none."""
        return self.n_ff_expert or self.n_ff


MAX_COUNT = 1 << 31  # no dimension of a model comes near
MAX_PER_LAYER = 1 << 10  # values of an array that has one for each layer
SOFTMAX, SIGMOID = 1, 2  # llama_expert_gating_func_type


def is_known(metadata: Mapping[str, object]) -> bool:
    """Return whether the graph and the tensors of a model are known here, from its GGUF metadata.

    Of the architectures with latent attention those with layers that predict further tokens, and files of before April 2025, which
    keep keys and values of every head, are not.
    """
    name = metadata.get("general.architecture")
    if name not in LATENT:
        return name in ARCHITECTURES
    return f"{name}.attention.key_length_mla" in metadata and not metadata.get(f"{name}.nextn_predict_layers")


class Numbers:
    """Reads dimensions from metadata; every complaint names the key and its value."""

    def __init__(self, metadata: Mapping[str, object]) -> None:
        architecture = metadata.get("general.architecture")
        if not isinstance(architecture, str):
            raise BadModel("the model has no general.architecture")
        self._metadata, self.architecture = metadata, architecture[:40]
        self.is_known = is_known(metadata)

    @property
    def is_latent(self) -> bool:
        """Return whether the model has latent attention as it is known here."""
        return self.is_known and self.architecture in LATENT

    def key(self, key: str) -> str:
        return f"{self.architecture}.{key}"

    def count(self, key: str, least: int, default: int | None = None) -> int:
        """Return a whole number, or the one that a value per layer repeats; the largest of several in an architecture that is not known here."""
        value = self._metadata.get(self.key(key), default)
        if isinstance(value, Sequence) and not isinstance(value, str | bytes):
            value = self._repeated(key, value)
        if value is None:
            raise BadModel(f"the model has no {self.key(key)}")
        if isinstance(value, bool) or not isinstance(value, int) or not least <= value < MAX_COUNT:
            is_larger = type(value) is int and value >= MAX_COUNT
            rule = (
                "no model has such a value" if is_larger else f"it must be a whole number of at least {least}"
            )
            raise BadModel(f"{self.key(key)} is {shown(value)}; {rule}")
        return value

    def number(self, key: str) -> float:
        """Return a number that is not needed, 0 where it is missing or none."""
        value = self._metadata.get(self.key(key))
        return value if isinstance(value, float | int) else 0.0

    def _repeated(self, key: str, values: Sequence[object]) -> object:
        if not 0 < len(values) <= MAX_PER_LAYER:
            raise BadModel(f"{self.key(key)} has {len(values):,} values; it must have 1 to {MAX_PER_LAYER:,}")
        numbers = [value for value in values if type(value) is int]
        if not self.is_known and len(numbers) == len(values):
            return max(numbers)
        if any(value != values[0] for value in values):
            raise BadModel(f"{self.key(key)} differs between layers, which mixcli does not support")
        return values[0]


def read_dimensions(metadata: Mapping[str, object], names: Collection[str], n_vocab: int) -> Dimensions:
    """Read dimensions from GGUF metadata (plain values) and the names of the tensors; BadModel for a number that cannot be."""
    read = Numbers(metadata)
    n_embd, n_head = read.count("embedding_length", 1), read.count("attention.head_count", 1)
    n_ff, n_layer = read.count("feed_forward_length", 0, 0), read.count("block_count", 1)
    n_expert = read.count("expert_count", 0, 0)
    mla = _mla(read, n_layer, n_vocab) if read.is_latent else None
    has_widths = mla is not None or not read.is_known
    width = read.count("expert_feed_forward_length", 0, n_ff) if has_widths else n_ff
    n_shared, n_dense = (
        read.count(key, 0, 0) if has_widths and n_expert else 0
        for key in ("expert_shared_count", "leading_dense_block_count")
    )
    return Dimensions(
        architecture=read.architecture,
        n_layer=n_layer,
        n_embd=n_embd,
        n_ff=n_ff,
        n_head=n_head,
        n_head_kv=read.count("attention.head_count_kv", 1, n_head),
        head_dim_k=read.count("attention.key_length", 1, n_embd // n_head),
        head_dim_v=read.count("attention.value_length", 1, n_embd // n_head),
        n_expert=n_expert,
        n_expert_used=read.count("expert_used_count", 0, 0),
        n_vocab=n_vocab,
        n_ctx_train=read.count("context_length", 0, 0),
        n_layer_dense=min(n_layer, n_dense),
        n_ff_expert=width,
        n_ff_shared=width * n_shared,
        mla=mla,
        router=_router(read, n_layer, n_vocab, names),
        temperature_length=_temperature_length(read),
        is_fused=any(name.endswith(".ffn_gate_up_exps.weight") for name in names),
    )


def _mla(read: Numbers, n_layer: int, n_vocab: int) -> Mla:
    is_lite = n_layer in LITE_LAYERS or (n_layer, n_vocab) == LITE_LAYERS_AND_VOCABULARY
    n_rot = read.count("rope.dimension_count", 1)
    return Mla(
        q_lora_rank=0 if is_lite else read.count("attention.q_lora_rank", 0),
        kv_lora_rank=read.count("attention.kv_lora_rank", 1),
        n_rot=n_rot,
        head_dim_k=read.count("attention.key_length_mla", n_rot + 1),
        head_dim_v=read.count("attention.value_length_mla", 1),
    )


def _temperature_length(read: Numbers) -> int:
    if read.architecture == "llama" or not read.number("attention.temperature_scale"):
        return 0
    if read.is_latent:
        return read.count("attention.temperature_length", 1)
    return read.count("rope.scaling.original_context_length", 1, read.count("context_length", 1))


def _router(read: Numbers, n_layer: int, n_vocab: int, names: Collection[str]) -> Router:
    scale = read.number("expert_weights_scale") or 1.0
    n_groups, n_groups_used = (
        read.count("expert_group_count", 0, 0),
        read.count("expert_group_used_count", 0, 0),
    )
    if not read.is_latent:
        return Router(scale=scale, n_groups=n_groups, n_groups_used=n_groups_used)
    is_glm = n_layer in GLM_LAYERS and n_vocab == GLM_VOCABULARY
    return Router(
        gating=read.count("expert_gating_func", 0, 0) or (SIGMOID if is_glm else SOFTMAX),
        normalizes=bool(read.number("expert_weights_norm")),
        scale=scale,
        is_biased=any(name.endswith(".exp_probs_b.bias") for name in names),
        n_groups=n_groups,
        n_groups_used=n_groups_used,
    )


__all__ = [
    "ARCHITECTURES",
    "LATENT",
    "SOFTMAX_ROUTER",
    "Dimensions",
    "Mla",
    "Numbers",
    "Router",
    "is_known",
    "read_dimensions",
]
