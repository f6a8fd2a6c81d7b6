"""Read the hyperparameters of a Hugging Face config.json.

A key that the file leaves out takes the default of its model type in transformers, as llama.cpp's converter sees it. A model that also
sees images has those of its text model in `text_config`.
"""

from collections.abc import Mapping
from typing import Any

from quantize.errors import MalformedFile, Unsupported
from quantize.sources.hparams import (
    MAX_CONTEXT,
    MAX_EXPERTS,
    MAX_LAYERS,
    MAX_VOCABULARY,
    MAX_WIDTH,
    Hparams,
    LatentAttention,
    RopeScaling,
    Routing,
    Temperature,
    checked,
    smallest_window,
    with_magnitude,
    yarn_magnitude,
)
from quantize.sources.json_fields import Fields, is_none, without_none
from quantize.wording import shown

_MISTRAL = {
    "hidden_size": 4096,
    "intermediate_size": 14336,
    "num_hidden_layers": 32,
    "num_attention_heads": 32,
    "num_key_value_heads": 8,
    "max_position_embeddings": 131072,
    "rms_norm_eps": 1e-6,
    "rope_theta": 1e4,
    "vocab_size": 32000,
}
_YARN = {
    "rope_type": "yarn",
    "beta_fast": 32.0,
    "beta_slow": 1.0,
    "mscale": 1.0,
    "mscale_all_dim": 1.0,
    "llama_4_scaling_beta": 0.1,
}

# model type of transformers -> what a key is where it is left out
_DEFAULTS: dict[str, dict[str, Any]] = {
    "mixtral": _MISTRAL
    | {"rms_norm_eps": 1e-5, "rope_theta": 1e6, "num_local_experts": 8, "num_experts_per_tok": 2},
    "mistral": _MISTRAL,
    "llama": {
        "hidden_size": 4096,
        "intermediate_size": 11008,
        "num_hidden_layers": 32,
        "num_attention_heads": 32,
        "max_position_embeddings": 2048,
        "rms_norm_eps": 1e-6,
        "rope_theta": 1e4,
        "vocab_size": 32000,
    },
    "ministral3": _MISTRAL
    | {
        "num_hidden_layers": 34,
        "max_position_embeddings": 262144,
        "rms_norm_eps": 1e-5,
        "vocab_size": 131072,
        "head_dim": 128,
        "rope_parameters": _YARN
        | {"rope_theta": 1e6, "factor": 16.0, "original_max_position_embeddings": 16384},
    },
    "mistral4": {
        "hidden_size": 4096,
        "intermediate_size": 12288,
        "moe_intermediate_size": 2048,
        "num_hidden_layers": 36,
        "num_attention_heads": 32,
        "num_key_value_heads": 32,
        "n_shared_experts": 1,
        "n_routed_experts": 128,
        "num_experts_per_tok": 4,
        "routed_scaling_factor": 1.0,
        "kv_lora_rank": 256,
        "q_lora_rank": 1024,
        "qk_rope_head_dim": 64,
        "qk_nope_head_dim": 64,
        "v_head_dim": 128,
        "n_group": 1,
        "topk_group": 1,
        "first_k_dense_replace": 0,
        "norm_topk_prob": True,
        "max_position_embeddings": 1048576,
        "rms_norm_eps": 1e-6,
        "vocab_size": 131072,
        "rope_parameters": _YARN
        | {"rope_theta": 1e4, "factor": 128.0, "original_max_position_embeddings": 8192},
    },
}

_WITH_IMAGES = "Mistral3ForConditionalGeneration"
# class of transformers -> its model type; with images the text model has one of its own
_TYPES = {
    "MixtralForCausalLM": "mixtral",
    "MistralForCausalLM": "mistral",
    "LlamaForCausalLM": "llama",
    "LLaMAForCausalLM": "llama",
    "Ministral3ForCausalLM": "ministral3",
    "Mistral4ForCausalLM": "mistral4",
    _WITH_IMAGES: "mistral",
}
_TEXT_TYPES = ("mistral", "ministral3", "mistral4")
_SUPPORTED = "Mixtral, Mistral and Llama text models"

# Keys for which 0 and -1 mean "none" too, as the code of these models and of their converters takes them
_NONE_BY_NUMBER = frozenset({"head_dim", "num_key_value_heads", "vocab_size"})


def model_type(config: Mapping[str, Any], where: str) -> str:
    """Return the model type of a checkpoint's text model; Unsupported for a class that is not of the family."""
    names = config.get("architectures")
    name = names[0] if isinstance(names, list) and names else None
    if not isinstance(name, str):
        raise Unsupported(f"{where} has no architecture; mixcli converts {_SUPPORTED}")
    if name not in _TYPES:
        raise Unsupported(
            f"{where} is a {name} model, which mixcli does not support; supported are {_SUPPORTED}"
        )
    if name != _WITH_IMAGES:
        return _TYPES[name]
    kind = Fields(config, where).mapping("text_config").get("model_type", _TYPES[name])
    if kind not in _TEXT_TYPES:
        raise Unsupported(
            f"{where} has a text model of the type {shown(kind)}; supported are {', '.join(_TEXT_TYPES)}"
        )
    return str(kind)


def hparams_from_config(config: Mapping[str, Any], where: str = "config.json") -> Hparams:
    """Read a Hugging Face config.json."""
    kind = model_type(config, where)
    text = {**config, **Fields(config, where).mapping("text_config")}
    activation = text.get("hidden_act")
    if activation not in (None, "silu", "swish"):
        raise Unsupported(
            f"{where} has hidden_act = {shown(activation)}, but llama.cpp uses silu for this architecture; mixcli cannot convert it"
        )
    read = Fields({**_defaults(kind, text), **without_none(text, _NONE_BY_NUMBER)}, where)
    n_head = read.count("num_attention_heads", MAX_WIDTH)
    n_embd = read.count("hidden_size", MAX_WIDTH)
    sees_images = config["architectures"][0] == _WITH_IMAGES
    rope = read.mapping("rope_parameters") or read.mapping("rope_scaling")
    is_llama = kind in ("mixtral", "mistral", "llama") and not sees_images
    architecture = "llama" if is_llama else "mistral4" if kind == "mistral4" else "mistral3"
    scaling = _scaling_of(kind, rope, architecture, where)
    is_mla = kind == "mistral4"
    head_dim = read.count("head_dim", MAX_WIDTH) if "head_dim" in read.values and not is_mla else None
    if head_dim is None and kind not in (
        "mixtral",
        "mistral4",
    ):  # transformers fills it in for the dense ones
        head_dim = n_embd // n_head
    n_ctx = read.count("max_position_embeddings", MAX_CONTEXT)
    n_expert = n_expert_used = 0
    if n_experts := {"mixtral": "num_local_experts", "mistral4": "n_routed_experts"}.get(kind):
        n_expert = read.count(n_experts, MAX_EXPERTS)
        n_expert_used = read.count("num_experts_per_tok", n_expert)
    mla = _latent_attention(read) if is_mla else None
    return checked(
        Hparams(
            n_layer=read.count("num_hidden_layers", MAX_LAYERS),
            n_ctx=n_ctx,
            n_embd=n_embd,
            n_ff=read.count("intermediate_size", MAX_WIDTH),
            n_head=n_head,
            n_head_kv=read.count("num_key_value_heads", n_head, default=n_head),
            n_vocab=read.count("vocab_size", MAX_VOCABULARY),
            rms_eps=read.number("rms_norm_eps"),
            rope_base=Fields(rope, where).number(
                "rope_theta", default=read.number("rope_theta", default=1e4)
            ),
            head_dim=mla.head_qk if mla else head_dim,
            n_expert=n_expert,
            n_expert_used=n_expert_used,
            rope_scaling=scaling,
            tied_embeddings=read.flag("tie_word_embeddings")
            or Fields(config, where).flag("tie_word_embeddings"),
            architecture=architecture,
            mla=mla,
            routing=_routing(read) if is_mla else None,
            temperature=_temperature(rope, scaling, where) if kind in ("ministral3", "mistral4") else None,
            sees_images=sees_images,
            window=smallest_window(
                text.get("use_sliding_window", True) and text.get("sliding_window"), n_ctx
            ),
        ),
        where,
    )


def _defaults(kind: str, config: Mapping[str, Any]) -> dict[str, Any]:
    """Return a model type's defaults; heads that are set to none are as many as there are heads, and a rank that is set to none is missing."""
    defaults = dict(_DEFAULTS[kind])
    for key in ("num_key_value_heads", "q_lora_rank"):
        if key in config:
            defaults.pop(key, None)
    if not is_none(config.get("rope_scaling")):
        defaults.pop("rope_parameters", None)
    return defaults


def _latent_attention(read: Fields) -> LatentAttention:
    if read.values.get("rope_interleave") is False:
        raise Unsupported(
            f"{read.where} has rope_interleave = false, which llama.cpp does not compute; mixcli cannot convert it"
        )
    return LatentAttention(
        q_rank=read.count("q_lora_rank", MAX_WIDTH),
        kv_rank=read.count("kv_lora_rank", MAX_WIDTH),
        head_nope=read.count("qk_nope_head_dim", MAX_WIDTH),
        head_rope=read.count("qk_rope_head_dim", MAX_WIDTH),
        head_v=read.count("v_head_dim", MAX_WIDTH),
    )


def _routing(read: Fields) -> Routing:
    n_groups = read.count("n_group", MAX_EXPERTS)
    n_dense = read.values["first_k_dense_replace"]
    return Routing(
        n_ff=read.count("moe_intermediate_size", MAX_WIDTH),
        n_shared=read.count("n_shared_experts", MAX_EXPERTS),
        n_layer_dense=0 if n_dense == 0 else read.count("first_k_dense_replace", MAX_LAYERS),
        scale=read.number("routed_scaling_factor"),
        normalizes=read.flag("norm_topk_prob"),
        groups=(n_groups, read.count("topk_group", n_groups)),
    )


def _temperature(rope: Mapping[str, Any], scaling: RopeScaling | None, where: str) -> Temperature | None:
    scale = Fields(rope, where).number("llama_4_scaling_beta", default=0)
    if not scale:
        return None
    trained = scaling.parameters.get("original_max_position_embeddings", 0) if scaling else 0
    return Temperature(scale, int(trained))


def _scaling_of(kind: str, rope: Mapping[str, Any], architecture: str, where: str) -> RopeScaling | None:
    """Return how a model type stretches positions, with what makes llama.cpp compute the same."""
    scaling = _rope_scaling(rope, where)
    if scaling is None or scaling.kind != "yarn":
        return scaling
    if kind in ("ministral3", "mistral4"):
        scaling = _with_multiplier(rope, scaling, where)
    return with_magnitude(scaling, _magnitude(rope, scaling, where), architecture, where)


def _with_multiplier(rope: Mapping[str, Any], scaling: RopeScaling, where: str) -> RopeScaling:
    """Add how much YaRN scales attention; llama.cpp takes `mscale` to be 1."""
    read = Fields(rope, where)
    if (mscale := read.number("mscale", default=1)) != 1:
        raise Unsupported(
            f"{where} has mscale = {mscale:g}, but llama.cpp only computes YaRN with 1; mixcli cannot convert it"
        )
    multiplier = {"log_multiplier": read.number("mscale_all_dim", default=0)}
    return RopeScaling(scaling.kind, {**scaling.parameters, **multiplier})


def _magnitude(rope: Mapping[str, Any], scaling: RopeScaling, where: str) -> float:
    """Return by what YaRN multiplies queries and keys in a configuration, as transformers reads it (modeling_rope_utils.py)."""
    if (given := scaling.parameters.get("attention_factor")) is not None:
        return given
    factor, read = scaling.parameters["factor"], Fields(rope, where)
    own, all_dims = (read.number(name, default=0) for name in ("mscale", "mscale_all_dim"))
    return (
        yarn_magnitude(factor, own) / yarn_magnitude(factor, all_dims)
        if own and all_dims
        else yarn_magnitude(factor)
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
            f"{where} has RoPE scaling {shown(kind)}; mixcli supports {', '.join(_ROPE_NUMBERS)} and none"
        )
    read = Fields(rope, where)
    numbers = {name: read.number(name, default=default) for name, default in _ROPE_NUMBERS[kind]}
    if (old := numbers.get("original_max_position_embeddings", 1)) > MAX_CONTEXT:
        raise MalformedFile(f"{where} has RoPE scaling from an original context of {old:g} positions")
    if kind == "yarn":
        optional = ("extrapolation_factor", "attention_factor", "attn_factor", "beta_fast", "beta_slow")
        numbers |= {name: read.number(name) for name in optional if rope.get(name) is not None}
        if "attn_factor" in numbers:
            numbers.setdefault("attention_factor", numbers.pop("attn_factor"))
    return RopeScaling(kind, numbers)
