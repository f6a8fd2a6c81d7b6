"""Read and check the hyperparameters of a model from config.json (Hugging Face) or params.json (Mistral).

A key that the file leaves out takes the default of its model type in transformers, as llama.cpp's converter sees it.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from quantize.errors import CorruptFile, Unsupported
from quantize.sources.json_fields import Fields, is_none
from quantize.wording import shown

MAX_LAYERS = 512  # llama.cpp's LLAMA_MAX_LAYERS
MAX_EXPERTS = 512  # llama.cpp's LLAMA_MAX_EXPERTS
MAX_WIDTH = 1 << 20
MAX_VOCABULARY = 1 << 22
MAX_CONTEXT = 1 << 30
NATIVE_CONTEXT = 32768  # what Mistral's models of 2023 and 2024 have and their params.json does not say


@dataclass(frozen=True)
class RopeScaling:
    """How positions are stretched; `parameters` are the numbers of the kind, by their Hugging Face names."""

    kind: str
    parameters: Mapping[str, float]


@dataclass(frozen=True)
class Hparams:
    """What decides shapes and metadata. `head_dim` is None where the file leaves it to n_embd / n_head."""

    n_layer: int
    n_ctx: int
    n_embd: int
    n_ff: int
    n_head: int
    n_head_kv: int
    n_vocab: int | None
    rms_eps: float
    rope_base: float
    head_dim: int | None = None
    n_expert: int = 0
    n_expert_used: int = 0
    rope_scaling: RopeScaling | None = None
    tied_embeddings: bool = False

    @property
    def head_size(self) -> int:
        return self.head_dim or self.n_embd // self.n_head


_DEFAULTS: dict[str, dict[str, Any]] = {
    "MixtralForCausalLM": {
        "hidden_size": 4096,
        "intermediate_size": 14336,
        "num_hidden_layers": 32,
        "num_attention_heads": 32,
        "num_key_value_heads": 8,
        "max_position_embeddings": 131072,
        "rms_norm_eps": 1e-5,
        "rope_theta": 1e6,
        "vocab_size": 32000,
        "num_local_experts": 8,
        "num_experts_per_tok": 2,
    },
    "MistralForCausalLM": {
        "hidden_size": 4096,
        "intermediate_size": 14336,
        "num_hidden_layers": 32,
        "num_attention_heads": 32,
        "num_key_value_heads": 8,
        "max_position_embeddings": 131072,
        "rms_norm_eps": 1e-6,
        "rope_theta": 1e4,
        "vocab_size": 32000,
    },
    "LlamaForCausalLM": {
        "hidden_size": 4096,
        "intermediate_size": 11008,
        "num_hidden_layers": 32,
        "num_attention_heads": 32,
        "max_position_embeddings": 2048,
        "rms_norm_eps": 1e-6,
        "rope_theta": 1e4,
        "vocab_size": 32000,
    },
}
_DEFAULTS["LLaMAForCausalLM"] = _DEFAULTS["LlamaForCausalLM"]

ARCHITECTURES = tuple(_DEFAULTS)


def architecture(config: Mapping[str, Any], where: str) -> str:
    """Name the checkpoint's architecture; Unsupported for anything but Mixtral, Mistral and Llama."""
    names = config.get("architectures")
    name = names[0] if isinstance(names, list) and names else None
    if not isinstance(name, str):
        raise Unsupported(f"{where} has no architecture; mixcli converts {', '.join(ARCHITECTURES[:3])}.")
    if name not in ARCHITECTURES:
        raise Unsupported(
            f"{where} is a {name} model, which mixcli does not support; supported are {', '.join(ARCHITECTURES[:3])}."
        )
    return name


def hparams_from_config(config: Mapping[str, Any], where: str = "config.json") -> Hparams:
    """Read a Hugging Face config.json."""
    name = architecture(config, where)
    activation = config.get("hidden_act")
    if activation not in (None, "silu", "swish"):
        raise Unsupported(
            f"{where} has hidden_act = {shown(activation)}, but llama.cpp uses silu for this architecture; mixcli cannot convert it."
        )
    read = Fields({**_defaults(name, config), **_said(config)}, where)
    n_head = read.count("num_attention_heads", MAX_WIDTH)
    n_embd = read.count("hidden_size", MAX_WIDTH)
    n_expert = n_expert_used = 0
    if name == "MixtralForCausalLM":
        n_expert = read.count("num_local_experts", MAX_EXPERTS)
        n_expert_used = read.count("num_experts_per_tok", n_expert)
    rope = read.mapping("rope_parameters") or read.mapping("rope_scaling")
    head_dim = read.count("head_dim", MAX_WIDTH) if "head_dim" in read.values else None
    if head_dim is None and name != "MixtralForCausalLM":  # transformers fills it in for the dense ones
        head_dim = n_embd // n_head
    return _checked(
        Hparams(
            n_layer=read.count("num_hidden_layers", MAX_LAYERS),
            n_ctx=read.count("max_position_embeddings", MAX_CONTEXT),
            n_embd=n_embd,
            n_ff=read.count("intermediate_size", MAX_WIDTH),
            n_head=n_head,
            n_head_kv=read.count("num_key_value_heads", n_head, default=n_head),
            n_vocab=read.count("vocab_size", MAX_VOCABULARY),
            rms_eps=read.number("rms_norm_eps"),
            rope_base=Fields(rope, where).number("rope_theta", default=read.number("rope_theta")),
            head_dim=head_dim,
            n_expert=n_expert,
            n_expert_used=n_expert_used,
            rope_scaling=_rope_scaling(rope, where),
            tied_embeddings=read.flag("tie_word_embeddings"),
        ),
        where,
    )


# Keys for which 0 and -1 mean "none" too, as the code of these models and of their converters takes them
_NONE_BY_NUMBER = frozenset({"head_dim", "num_key_value_heads", "n_kv_heads", "vocab_size", "max_seq_len"})


def _said(values: Mapping[str, Any]) -> dict[str, Any]:
    """Return what a configuration really says: without what means "none" or "the default"."""
    return {
        key: value
        for key, value in values.items()
        if value is not None and not (key in _NONE_BY_NUMBER and (value is False or value in (0, -1)))
    }


def _defaults(name: str, config: Mapping[str, Any]) -> dict[str, Any]:
    """Return a model type's defaults; heads that are set to none are as many as there are heads, not the default number."""
    defaults = dict(_DEFAULTS[name])
    if "num_key_value_heads" in config:
        defaults.pop("num_key_value_heads", None)
    return defaults


def hparams_from_params(params: Mapping[str, Any], where: str = "params.json") -> Hparams:
    """Read a Mistral-native params.json; `moe` makes it a Mixtral."""
    for key in ("vision_encoder", "multimodal", "mamba", "q_lora_rank", "llama_4_scaling"):
        if not is_none(params.get(key)):
            raise Unsupported(
                f"{where} has {key!r}, which mixcli does not support; supported are Mistral and Mixtral text models."
            )
    read = Fields(_said(params), where)
    n_expert = n_expert_used = 0
    if moe := read.mapping("moe"):
        n_expert = Fields(moe, where).count("num_experts", MAX_EXPERTS)
        n_expert_used = Fields(moe, where).count("num_experts_per_tok", n_expert)
    n_head = read.count("n_heads", MAX_WIDTH)
    yarn = read.mapping("yarn")
    scaling = None
    if yarn:
        stretch = Fields(yarn, where)
        scaling = RopeScaling(
            "yarn",
            {
                "factor": stretch.number("factor"),
                "original_max_position_embeddings": stretch.number("original_max_position_embeddings"),
                "beta_fast": stretch.number("beta"),
                "beta_slow": stretch.number("alpha"),
                "log_multiplier": 0.0 if yarn.get("apply_scale") else 1.0,
            },
        )
    n_ctx = next((key for key in ("max_position_embeddings", "max_seq_len") if key in read.values), "")
    return _checked(
        Hparams(
            n_layer=read.count("n_layers", MAX_LAYERS),
            n_ctx=read.count(n_ctx, MAX_CONTEXT, default=NATIVE_CONTEXT),
            n_embd=read.count("dim", MAX_WIDTH),
            n_ff=read.count("hidden_dim", MAX_WIDTH),
            n_head=n_head,
            n_head_kv=read.count("n_kv_heads", n_head, default=n_head),
            n_vocab=read.count("vocab_size", MAX_VOCABULARY) if "vocab_size" in read.values else None,
            rms_eps=read.number("norm_eps"),
            rope_base=read.number("rope_theta", default=10000.0),
            head_dim=read.count("head_dim", MAX_WIDTH) if "head_dim" in read.values else None,
            n_expert=n_expert,
            n_expert_used=n_expert_used,
            rope_scaling=scaling,
            tied_embeddings=read.flag("tied_embeddings"),
        ),
        where,
    )


_ROPE_NUMBERS: dict[str, tuple[tuple[str, float | None], ...]] = {  # name and default; None: must be there
    "linear": (("factor", None),),
    "yarn": (("factor", None), ("original_max_position_embeddings", None)),
    "llama3": (
        ("factor", 8.0),
        ("low_freq_factor", 1.0),
        ("high_freq_factor", 4.0),
        ("original_max_position_embeddings", 8192.0),
    ),
}


def _rope_scaling(rope: Mapping[str, Any], where: str) -> RopeScaling | None:
    kind = rope.get("rope_type", rope.get("type", "default"))
    if kind == "default" or is_none(kind):
        return None
    if not isinstance(kind, str) or kind not in _ROPE_NUMBERS:
        raise Unsupported(
            f"{where} has RoPE scaling {shown(kind)}; mixcli supports {', '.join(_ROPE_NUMBERS)} and none."
        )
    read = Fields(rope, where)
    numbers = {name: read.number(name, default=default) for name, default in _ROPE_NUMBERS[kind]}
    if (old := numbers.get("original_max_position_embeddings", 1)) > MAX_CONTEXT:
        raise CorruptFile(
            f"{where} has RoPE scaling from an original context of {old:g} positions; download it again."
        )
    if kind == "yarn":
        optional = ("extrapolation_factor", "attention_factor", "attn_factor", "beta_fast", "beta_slow")
        numbers |= {name: read.number(name) for name in optional if rope.get(name) is not None}
        if "attn_factor" in numbers:
            numbers.setdefault("attention_factor", numbers.pop("attn_factor"))
    return RopeScaling(kind, numbers)


def _checked(hparams: Hparams, where: str) -> Hparams:
    if hparams.head_dim is None and hparams.n_embd % hparams.n_head:
        raise CorruptFile(
            f"{where} has a hidden size of {hparams.n_embd}, which is not a multiple of the {hparams.n_head} heads; download it again."
        )
    if hparams.n_head % hparams.n_head_kv:
        raise CorruptFile(
            f"{where} has {hparams.n_head} heads, which is not a multiple of the {hparams.n_head_kv} key-value heads; download it again."
        )
    if hparams.head_size % 2:
        raise CorruptFile(f"{where} has the odd head size {hparams.head_size}; download it again.")
    return hparams
