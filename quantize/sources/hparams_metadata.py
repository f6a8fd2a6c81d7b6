"""Write the hyperparameters of a model as the keys of a GGUF that begin with its architecture."""

from quantize.source import Value, f32, flag, text, u32
from quantize.sources.hparams import Hparams, LatentAttention, RopeScaling, Routing, Temperature

_YARN_KEYS = (
    ("yarn_ext_factor", "extrapolation_factor"),
    ("yarn_attn_factor", "attention_factor"),
    ("yarn_beta_fast", "beta_fast"),
    ("yarn_beta_slow", "beta_slow"),
)
_SCORING = {"softmax": 1}  # llama.cpp's LLAMA_EXPERT_GATING_FUNC_TYPE_*


def hparams_metadata(hparams: Hparams, n_vocab: int) -> dict[str, Value]:
    """Return the keys of a model with `n_vocab` embedding rows, in the order of llama.cpp's converter."""
    mla, routing = hparams.mla, hparams.routing
    keys = {"block_count": u32(hparams.n_layer)}
    keys["context_length"] = u32(hparams.n_ctx)
    keys["embedding_length"] = u32(hparams.n_embd)
    keys["feed_forward_length"] = u32(hparams.n_ff)
    keys["attention.head_count"] = u32(hparams.n_head)
    keys["attention.head_count_kv"] = u32(1 if mla else hparams.n_head_kv)  # every head reads the one latent
    if hparams.rope_scaling:
        keys |= _rope_scaling(hparams.rope_scaling)
    keys["rope.freq_base"] = f32(hparams.rope_base)
    keys["attention.layer_norm_rms_epsilon"] = f32(hparams.rms_eps)
    if hparams.n_expert:
        keys["expert_count"] = u32(hparams.n_expert)
        keys["expert_used_count"] = u32(hparams.n_expert_used)
    if routing:
        keys |= _groups_and_scoring(routing)
    if mla:
        keys["attention.key_length"] = u32(mla.kv_rank + mla.head_rope)
        keys["attention.value_length"] = u32(mla.kv_rank)
    elif hparams.head_dim is not None:
        keys["attention.key_length"] = u32(hparams.head_dim)
        keys["attention.value_length"] = u32(hparams.head_dim)
    if routing:
        keys["leading_dense_block_count"] = u32(routing.n_layer_dense)
    keys["vocab_size"] = u32(n_vocab)
    if mla:
        keys |= _latent_attention(mla)
    if routing:
        keys |= _routing(routing)
    keys["rope.dimension_count"] = u32(hparams.n_rot)
    if hparams.rope_scaling and "log_multiplier" in hparams.rope_scaling.parameters:
        # for models with latent attention, llama.cpp's converter writes a tenth of it and its loader takes that back
        share = 0.1 if mla else 1.0
        keys["rope.scaling.yarn_log_multiplier"] = f32(
            share * hparams.rope_scaling.parameters["log_multiplier"]
        )
    if hparams.temperature:
        keys |= _temperature(hparams.temperature, with_length=mla is not None)
    return {f"{hparams.architecture}.{key}": value for key, value in keys.items()}


def _rope_scaling(scaling: RopeScaling) -> dict[str, Value]:
    prefix, numbers = "rope.scaling.", scaling.parameters
    if scaling.kind == "llama3":  # carried by the tensor rope_freqs.weight instead
        return {}
    keys = {prefix + "type": text(scaling.kind), prefix + "factor": f32(numbers["factor"])}
    if scaling.kind == "yarn":
        keys[prefix + "original_context_length"] = u32(int(numbers["original_max_position_embeddings"]))
        for key, name in _YARN_KEYS:
            if name in numbers:
                keys[prefix + key] = f32(numbers[name])
        if "attention_scale" in numbers:
            keys[prefix + "attn_factor"] = f32(numbers["attention_scale"])
    return keys


def _groups_and_scoring(routing: Routing) -> dict[str, Value]:
    keys = {}
    if routing.groups:
        keys["expert_group_count"], keys["expert_group_used_count"] = map(u32, routing.groups)
    if routing.scoring:
        keys["expert_gating_func"] = u32(_SCORING[routing.scoring])
    return keys


def _latent_attention(mla: LatentAttention) -> dict[str, Value]:
    return {
        "attention.q_lora_rank": u32(mla.q_rank),
        "attention.kv_lora_rank": u32(mla.kv_rank),
        "attention.key_length_mla": u32(mla.head_qk),
        "attention.value_length_mla": u32(mla.head_v),
    }


def _routing(routing: Routing) -> dict[str, Value]:
    keys = {
        "expert_feed_forward_length": u32(routing.n_ff),
        "expert_shared_count": u32(routing.n_shared),
        "expert_weights_scale": f32(routing.scale),
    }
    return keys | ({"expert_weights_norm": flag(True)} if routing.normalizes else {})


def _temperature(temperature: Temperature, *, with_length: bool) -> dict[str, Value]:
    """Write the temperature; without its length, llama.cpp takes that of YaRN."""
    keys = {"attention.temperature_scale": f32(temperature.scale)}
    return keys | ({"attention.temperature_length": u32(temperature.length)} if with_length else {})
