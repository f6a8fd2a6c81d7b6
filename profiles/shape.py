"""ModelShape: what the planner must know of a model, read from a GGUF's metadata and tensor list."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

# what a tensor does -> a part of its name; the first that matches
CLASSES = (
    ("norms", "_norm."),
    ("experts", "_exps."),
    ("router", "ffn_gate_inp."),
    ("feed forward", "ffn_"),
    ("attention", "attn_"),
    ("embedding", "token_embd."),
    ("output", "output."),
)


def tensor_class(name: str) -> str:
    """Say in a word what a GGUF tensor of that name does."""
    return next((what for what, part in CLASSES if part in name), "other")


@dataclass(frozen=True)
class ModelShape:
    """The dimensions and sizes of one model.

    Counts are plain numbers, `bytes_*` are bytes on disk (and in memory, unless repacked). `n_expert` is 0 for a dense model.
    `head_dim_k` and `head_dim_v` are elements of one head's key and value.
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
    bytes_experts: int
    bytes_other: int
    params_total: int
    params_active: int

    @property
    def bytes_weights(self) -> int:
        """Give the bytes of all tensors."""
        return self.bytes_experts + self.bytes_other


def model_shape(metadata: Mapping[str, object], tensors: Iterable[tuple[str, int, int]]) -> ModelShape:
    """Read a shape from GGUF metadata (plain values) and tensors as (name, elements, bytes).

    Parameters count as llama.cpp counts them: every tensor's elements; active ones leave out the experts that a token does not use.
    """
    arch = str(metadata["general.architecture"])

    def number(key: str, default: int = 0) -> int:
        value = metadata.get(f"{arch}.{key}", default)
        assert isinstance(value, int)
        return value

    n_embd, n_head = number("embedding_length"), number("attention.head_count")
    n_expert, n_expert_used = number("expert_count"), number("expert_used_count")
    head_dim = n_embd // n_head
    bytes_experts = bytes_other = params_experts = params_other = n_vocab = 0
    for name, n_elements, n_bytes in tensors:
        if tensor_class(name) == "experts":
            bytes_experts += n_bytes
            params_experts += n_elements
        else:
            bytes_other += n_bytes
            params_other += n_elements
        if name == "token_embd.weight":
            n_vocab = n_elements // n_embd
    return ModelShape(
        n_layer=number("block_count"),
        n_embd=n_embd,
        n_ff=number("feed_forward_length"),
        n_head=n_head,
        n_head_kv=number("attention.head_count_kv", n_head),
        head_dim_k=number("attention.key_length", head_dim),
        head_dim_v=number("attention.value_length", head_dim),
        n_expert=n_expert,
        n_expert_used=n_expert_used,
        n_vocab=n_vocab,
        n_ctx_train=number("context_length"),
        bytes_experts=bytes_experts,
        bytes_other=bytes_other,
        params_total=params_experts + params_other,
        params_active=params_other + (params_experts * n_expert_used // n_expert if n_expert else 0),
    )
