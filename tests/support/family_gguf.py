"""Tiny GGUFs of families beside Mistral's, with random weights: what llama.cpp's loader asks of each (src/models/*.cpp)."""

from collections.abc import Mapping
from pathlib import Path

import numpy as np

from quantize.file_layout import header_bytes
from quantize.ggml_types import GGMLQuantizationType as Type
from quantize.source import Value, f32, flag, text, u32
from tests.support.small_gguf import vocabulary

N_VOCAB, N_LAYER, N_EMBD, N_FF, N_CTX = 384, 4, 64, 96, 8192
N_HEAD, N_HEAD_KV, HEAD, N_EXPERT, N_USED, WINDOW = 4, 2, 32, 8, 2, 16
FAMILIES = ("gemma3", "qwen3moe", "gpt-oss", "olmoe", "granitemoe")

N_INNER = 2 * N_EMBD  # of a recurrent layer

Shapes = dict[str, tuple[int, ...]]
RECURRENT: Shapes = {
    "attn_norm.weight": (N_EMBD,),
    "ssm_in.weight": (2 * N_INNER, N_EMBD),
    "ssm_conv1d.weight": (N_INNER, 4),
    "ssm_conv1d.bias": (N_INNER,),
    "ssm_x.weight": (4 + 2 * 16, N_INNER),
    "ssm_dt.weight": (N_INNER, 4),
    "ssm_dt.bias": (N_INNER,),
    "ssm_a": (N_INNER, 16),
    "ssm_d": (N_INNER,),
    "ssm_out.weight": (N_EMBD, N_INNER),
}


def metadata(family: str) -> dict[str, Value]:
    """What a model of a family says of itself, with a vocabulary of bytes and words."""
    own: dict[str, Value] = {
        "block_count": u32(6 if family == "gemma3" else N_LAYER),  # every sixth of Gemma's layers sees all
        "context_length": u32(N_CTX),
        "embedding_length": u32(N_EMBD),
        "feed_forward_length": u32(N_FF),
        "attention.head_count": u32(N_HEAD),
        "attention.head_count_kv": u32(N_HEAD_KV),
        "attention.layer_norm_rms_epsilon": f32(1e-6),
    }
    if family in ("gemma3", "gpt-oss"):
        own["attention.sliding_window"] = u32(WINDOW)
    if family != "gemma3":
        own |= {"expert_count": u32(N_EXPERT), "expert_used_count": u32(N_USED)}
    if family == "olmoe":
        own |= {"attention.head_count": u32(N_EMBD // HEAD), "attention.head_count_kv": u32(N_EMBD // HEAD)}
    else:
        own |= {"attention.key_length": u32(HEAD), "attention.value_length": u32(HEAD)}
        own["rope.dimension_count"] = u32(HEAD)
    if family in ("qwen3moe", "gpt-oss"):
        own["expert_feed_forward_length"] = u32(N_FF)
    if family == "mamba":
        sizes = {"conv_kernel": 4, "inner_size": N_INNER, "state_size": 16, "time_step_rank": 4}
        own = {key: own[key] for key in ("block_count", "context_length", "embedding_length")} | {
            "attention.layer_norm_rms_epsilon": f32(1e-6),
            **{f"ssm.{key}": u32(size) for key, size in sizes.items()},
        }
    if family == "granitemoe":
        own |= {"logit_scale": f32(2.0), "expert_shared_feed_forward_length": u32(N_EMBD)}
    return {
        "general.architecture": text(family),
        "general.name": text(f"tiny {family}"),
        **{f"{family}.{key}": value for key, value in own.items()},
        "tokenizer.ggml.model": text("llama"),
        **vocabulary(N_VOCAB),
        "tokenizer.ggml.bos_token_id": u32(1),
        "tokenizer.ggml.eos_token_id": u32(2),
        "tokenizer.ggml.add_bos_token": flag(True),
        "tokenizer.ggml.add_space_prefix": flag(False),
        "tokenizer.chat_template": text(
            "{{ bos_token }}{% for m in messages %}{{ m['role'] }}: {{ m['content'] }}\n{% endfor %}assistant:"
        ),
    }


def renamed(family: str, architecture: str) -> dict[str, Value | None]:
    """What makes a model of a family one of another architecture, with all its keys."""
    own = {key: value for key, value in metadata(family).items() if key.startswith(f"{family}.")}
    moved = {key.replace(family, architecture, 1): value for key, value in own.items()}
    return {**dict.fromkeys(own), **moved, "general.architecture": text(architecture)}


def shapes(family: str) -> Shapes:
    """The tensors of a family, in numpy order."""
    q, kv = (N_EMBD, N_EMBD) if family == "olmoe" else (N_HEAD * HEAD, N_HEAD_KV * HEAD)
    found: Shapes = {"token_embd.weight": (N_VOCAB, N_EMBD), "output_norm.weight": (N_EMBD,)}
    if family != "gemma3":
        found["output.weight"] = (N_VOCAB, N_EMBD)
    if family == "mamba":
        return found | {f"blk.{i}.{name}": shape for i in range(N_LAYER) for name, shape in RECURRENT.items()}
    layer: Shapes = {
        "attn_norm.weight": (N_EMBD,),
        "attn_q.weight": (q, N_EMBD),
        "attn_k.weight": (kv, N_EMBD),
        "attn_v.weight": (kv, N_EMBD),
        "attn_output.weight": (N_EMBD, q),
    }
    if family in ("gemma3", "qwen3moe"):
        layer |= {"attn_q_norm.weight": (HEAD,), "attn_k_norm.weight": (HEAD,)}
    if family == "olmoe":
        layer |= {"attn_q_norm.weight": (N_EMBD,), "attn_k_norm.weight": (N_EMBD,)}
    if family == "gemma3":
        layer |= {"post_attention_norm.weight": (N_EMBD,), "post_ffw_norm.weight": (N_EMBD,)}
        layer |= {f"ffn_{part}.weight": (N_FF, N_EMBD) for part in ("gate", "up")}
        layer["ffn_down.weight"] = (N_EMBD, N_FF)
    else:
        layer["ffn_gate_inp.weight"] = (N_EXPERT, N_EMBD)
        layer |= {f"ffn_{part}_exps.weight": (N_EXPERT, N_FF, N_EMBD) for part in ("gate", "up")}
        layer["ffn_down_exps.weight"] = (N_EXPERT, N_EMBD, N_FF)
    if family == "gpt-oss":
        layer |= {"post_attention_norm.weight": (N_EMBD,), "attn_sinks.weight": (N_HEAD,)}
        layer |= {
            "attn_q.bias": (q,),
            "attn_k.bias": (kv,),
            "attn_v.bias": (kv,),
            "attn_output.bias": (N_EMBD,),
        }
        layer |= {"ffn_gate_inp.bias": (N_EXPERT,), "ffn_down_exps.bias": (N_EXPERT, N_EMBD)}
        layer |= {f"ffn_{part}_exps.bias": (N_EXPERT, N_FF) for part in ("gate", "up")}
    else:
        layer["ffn_norm.weight"] = (N_EMBD,)
    if family == "granitemoe":
        layer |= {f"ffn_{part}_shexp.weight": (N_EMBD, N_EMBD) for part in ("gate", "up", "down")}
    n_layer = metadata(family)[f"{family}.block_count"].value
    return found | {f"blk.{i}.{name}": shape for i in range(n_layer) for name, shape in layer.items()}


def type_of(name: str) -> Type:
    """The type of a tensor: vectors as they must be, matrices in 16 bits."""
    is_vector = "norm" in name or name.endswith(".bias") or "sinks" in name or "gate_inp" in name
    return Type.F32 if is_vector else Type.F16


def write(
    family: str,
    path: Path,
    *,
    changes: Mapping[str, Value | None] | None = None,
    without: str = "",
    seed: int = 1,
) -> Path:
    """Write a model; `changes` replace metadata, None takes a key out; `without` leaves out a tensor."""
    keys = {key: value for key, value in {**metadata(family), **(changes or {})}.items() if value is not None}
    draw = np.random.default_rng(seed)
    entries, data, at = [], [], 0
    for name, shape in shapes(family).items():
        if name == without:
            continue
        kind = type_of(name)
        values = draw.standard_normal(shape, np.float32) * (0.3 if len(shape) > 1 else 0.1)
        if (
            "norm" in name
        ):  # Gemma's layers must outweigh its embedding, or a tied output repeats the last token
            values += 16 if family == "gemma3" and "post" in name else 1
        raw = values.astype(np.float32 if kind == Type.F32 else np.float16).tobytes()
        entries.append((name, kind, shape, at))
        data.append(raw + bytes(-len(raw) % 32))
        at += len(data[-1])
    path.write_bytes(header_bytes(keys, entries) + b"".join(data))
    return path
