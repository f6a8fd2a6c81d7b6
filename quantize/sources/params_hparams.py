"""Read the hyperparameters of a Mistral-native params.json."""

from collections.abc import Mapping
from typing import Any

from quantize.errors import Unsupported
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

NATIVE_CONTEXT = 32768  # what Mistral's models of 2023 and 2024 have and their params.json does not say
LATENT_CONTEXT = 128_000  # what llama.cpp's converter takes for those with latent attention

_NONE_BY_NUMBER = frozenset({"head_dim", "n_kv_heads", "vocab_size", "max_seq_len"})
_VISION = ("vision_encoder", "multimodal")


def hparams_from_params(params: Mapping[str, Any], where: str = "params.json") -> Hparams:
    """Read a Mistral-native params.json; `moe` makes it a Mixtral, or with latent attention a Mistral Large 3."""
    if not is_none(params.get("mamba")):
        raise Unsupported(
            f"{where} has 'mamba', which mixcli does not support; supported are Mistral and Mixtral text models"
        )
    read = Fields(without_none(params, _NONE_BY_NUMBER), where)
    moe = Fields(read.mapping("moe"), where)
    n_expert = n_expert_used = 0
    if moe.values:
        n_expert = moe.count("num_experts", MAX_EXPERTS)
        n_expert_used = moe.count("num_experts_per_tok", n_expert)
    mla = _latent_attention(read) if "kv_lora_rank" in read.values else None
    temperature = _temperature(read)
    scaling = _yarn(read)
    if mla and not (n_expert and scaling):
        raise Unsupported(
            f"{where} has latent attention without {'YaRN' if n_expert else 'experts'}; llama.cpp has no such Mistral model"
        )
    if mla and scaling:  # whatever apply_scale says
        scaling = RopeScaling(scaling.kind, {**scaling.parameters, "log_multiplier": 1.0})
    elif scaling:
        applies = bool(read.mapping("yarn").get("apply_scale"))
        wanted = yarn_magnitude(scaling.parameters["factor"]) if applies else 1.0
        scaling = with_magnitude(scaling, wanted, "mistral3" if temperature else "llama", where)
    n_head = read.count("n_heads", MAX_WIDTH)
    named = next((key for key in ("max_position_embeddings", "max_seq_len") if key in read.values), "")
    n_ctx = read.count(named, MAX_CONTEXT, default=LATENT_CONTEXT if mla else NATIVE_CONTEXT)
    head_dim = read.count("head_dim", MAX_WIDTH) if "head_dim" in read.values else None
    return checked(
        Hparams(
            n_layer=read.count("n_layers", MAX_LAYERS),
            n_ctx=n_ctx,
            n_embd=read.count("dim", MAX_WIDTH),
            n_ff=read.count("hidden_dim", MAX_WIDTH),
            n_head=n_head,
            n_head_kv=read.count("n_kv_heads", n_head, default=n_head),
            n_vocab=read.count("vocab_size", MAX_VOCABULARY) if "vocab_size" in read.values else None,
            rms_eps=read.number("norm_eps"),
            rope_base=read.number("rope_theta", default=10000.0),
            head_dim=mla.head_qk if mla else head_dim,
            n_expert=n_expert,
            n_expert_used=n_expert_used,
            rope_scaling=scaling,
            tied_embeddings=read.flag("tied_embeddings"),
            architecture="deepseek2" if mla else "mistral3" if temperature else "llama",
            mla=mla,
            routing=_routing(moe) if mla else None,
            temperature=temperature,
            sees_images=any(not is_none(params.get(key)) for key in _VISION),
            window=smallest_window(params.get("sliding_window", params.get("_sliding_window")), n_ctx),
        ),
        where,
    )


def _yarn(read: Fields) -> RopeScaling | None:
    yarn = read.mapping("yarn")
    if not yarn:
        return None
    stretch = Fields(yarn, read.where)
    return RopeScaling(
        "yarn",
        {
            "factor": stretch.number("factor"),
            "original_max_position_embeddings": stretch.count(
                "original_max_position_embeddings", MAX_CONTEXT
            ),
            "beta_fast": stretch.number("beta"),
            "beta_slow": stretch.number("alpha"),
            "log_multiplier": 0.0 if yarn.get("apply_scale") else 1.0,
        },
    )


def _latent_attention(read: Fields) -> LatentAttention:
    return LatentAttention(
        q_rank=read.count("q_lora_rank", MAX_WIDTH),
        kv_rank=read.count("kv_lora_rank", MAX_WIDTH),
        head_nope=read.count("qk_nope_head_dim", MAX_WIDTH),
        head_rope=read.count("qk_rope_head_dim", MAX_WIDTH),
        head_v=read.count("v_head_dim", MAX_WIDTH),
    )


def _routing(moe: Fields) -> Routing:
    if moe.count("route_every_n", MAX_LAYERS, default=1) != 1:
        raise Unsupported(
            f"{moe.where} has experts in one of {moe.values['route_every_n']} layers only, which llama.cpp does not compute; "
            "mixcli cannot convert it"
        )
    groups = None
    if moe.values.get("num_expert_groups") is not None:
        n_groups = moe.count("num_expert_groups", MAX_EXPERTS)
        groups = n_groups, moe.count("num_expert_groups_per_tok", n_groups)
    n_dense = moe.values.get("first_k_dense_replace", 0)
    return Routing(
        n_ff=moe.count("expert_hidden_dim", MAX_WIDTH),
        n_shared=moe.count("num_shared_experts", MAX_EXPERTS),
        n_layer_dense=0 if n_dense == 0 else moe.count("first_k_dense_replace", MAX_LAYERS),
        scale=moe.number("routed_scale", default=1.0),
        groups=groups,
        scoring="softmax",
    )


def _temperature(read: Fields) -> Temperature | None:
    scaling = read.mapping("llama_4_scaling")
    if not scaling:
        return None
    fields = Fields(scaling, read.where)
    return Temperature(fields.number("beta"), fields.count("original_max_position_embeddings", MAX_CONTEXT))
