"""Write the hyperparameters of a model as the `llama.*` keys of a GGUF."""

from quantize.source import Value, f32, text, u32
from quantize.sources.hparams import Hparams, RopeScaling

_YARN_KEYS = (
    ("yarn_ext_factor", "extrapolation_factor"),
    ("yarn_attn_factor", "attention_factor"),
    ("yarn_beta_fast", "beta_fast"),
    ("yarn_beta_slow", "beta_slow"),
    ("yarn_log_multiplier", "log_multiplier"),
)


def hparams_metadata(hparams: Hparams) -> dict[str, Value]:
    """The `llama.*` keys, in the order of llama.cpp's converter."""
    keys = {"llama.block_count": u32(hparams.n_layer)}
    keys["llama.context_length"] = u32(hparams.n_ctx)
    keys["llama.embedding_length"] = u32(hparams.n_embd)
    keys["llama.feed_forward_length"] = u32(hparams.n_ff)
    keys["llama.attention.head_count"] = u32(hparams.n_head)
    keys["llama.attention.head_count_kv"] = u32(hparams.n_head_kv)
    if hparams.rope_scaling:
        keys |= _rope_scaling_metadata(hparams.rope_scaling)
    keys["llama.rope.freq_base"] = f32(hparams.rope_base)
    keys["llama.attention.layer_norm_rms_epsilon"] = f32(hparams.rms_eps)
    if hparams.n_expert:
        keys["llama.expert_count"] = u32(hparams.n_expert)
        keys["llama.expert_used_count"] = u32(hparams.n_expert_used)
    if hparams.head_dim is not None:
        keys["llama.attention.key_length"] = u32(hparams.head_dim)
        keys["llama.attention.value_length"] = u32(hparams.head_dim)
    return keys


def _rope_scaling_metadata(scaling: RopeScaling) -> dict[str, Value]:
    prefix, numbers = "llama.rope.scaling.", scaling.parameters
    if scaling.kind == "llama3":  # carried by the tensor rope_freqs.weight instead
        return {}
    keys = {prefix + "type": text(scaling.kind), prefix + "factor": f32(numbers["factor"])}
    if scaling.kind == "yarn":
        keys[prefix + "original_context_length"] = u32(int(numbers["original_max_position_embeddings"]))
        for key, name in _YARN_KEYS:
            if name in numbers:
                keys[prefix + key] = f32(numbers[name])
    return keys
