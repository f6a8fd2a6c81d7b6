"""Tiny checkpoints of the newer Mistral models, in both layouts: random weights, every byte a function of the arguments.

Widths are small and not equal to each other, so that a mistaken axis cannot pass. Positions are stretched from 16, so that a short text reaches
the range in which YaRN and attention's temperature do something.
"""

import json
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from quantize.sources.gguf_source import open_gguf
from quantize.vocab.bpe import tokenizer_json
from tests.support.checkpoints import (
    Arrays,
    bf16_values,
    mixtral_shapes,
    native_name,
    pack_safetensors,
    write_json,
    write_shards,
)
from tests.support.models import N_TOKENS, later_file

Shapes = dict[str, tuple[int, ...]]
Change = Callable[[Arrays], Arrays]

TRAINED = 16  # positions before stretching
N_EMBD, N_FF, N_EXPERT, N_USED = 64, 96, 8, 3
MLA = {"q_lora_rank": 24, "kv_lora_rank": 32, "qk_nope_head_dim": 20, "qk_rope_head_dim": 8, "v_head_dim": 12}
N_HEAD = 4
YARN = {
    "rope_type": "yarn",
    "rope_theta": 10000.0,
    "factor": 8.0,
    "original_max_position_embeddings": TRAINED,
    "beta_fast": 32.0,
    "beta_slow": 1.0,
    "mscale": 1.0,
    "mscale_all_dim": 1.0,
    "llama_4_scaling_beta": 0.1,
}
NATIVE_YARN = {
    "yarn": {"factor": 8, "original_max_position_embeddings": TRAINED, "beta": 32, "alpha": 1, "apply_scale": False},
    "llama_4_scaling": {"original_max_position_embeddings": TRAINED, "beta": 0.1},
}  # fmt: skip
VISION = {
    "vision_tower.patch_conv.weight": (8, 3, 2, 2),
    "vision_tower.transformer.layers.0.attention.q_proj.weight": (8, 8),
    "multi_modal_projector.linear_1.weight": (N_EMBD, 8),
}
NATIVE_VISION = {
    "vision_encoder.transformer.layers.0.attention.wq.weight": (8, 8),
    "vision_language_adapter.w_in.weight": (N_EMBD, 8),
    "pre_mm_projector_norm.weight": (8,),
}


def arrays_of(shapes: Mapping[str, tuple[int, ...]], seed: int) -> Arrays:
    """Random weights of a size with which attention is sharp and experts differ, so that each number of a configuration shows."""
    arrays = {}
    for i, (name, shape) in enumerate(shapes.items()):
        values = bf16_values(shape, seed * 1000 + i)
        arrays[name] = np.abs(values) * np.float32(16) if len(shape) == 1 else values * np.float32(8)
    return arrays


def _dense(n_layer: int, n_vocab: int) -> Shapes:
    return mixtral_shapes(
        n_layer=n_layer, n_embd=N_EMBD, n_ff=N_FF, n_head=N_HEAD, n_head_kv=2, n_vocab=n_vocab, n_expert=0, head_dim=24
    )  # fmt: skip


def _text_config(model_type: str, n_layer: int, n_vocab: int, **more: Any) -> dict[str, Any]:
    return {
        "model_type": model_type,
        "hidden_size": N_EMBD,
        "intermediate_size": N_FF,
        "num_hidden_layers": n_layer,
        "num_attention_heads": N_HEAD,
        "max_position_embeddings": 512,
        "rms_norm_eps": 1e-5,
        "vocab_size": n_vocab,
        "tie_word_embeddings": False,
        **more,
    }


def _wrapped(text: dict[str, Any], **more: Any) -> dict[str, Any]:
    return {
        "architectures": ["Mistral3ForConditionalGeneration"],
        "model_type": "mistral3",
        "text_config": text,
        "vision_config": {"model_type": "pixtral", "hidden_size": 8, "num_attention_heads": 2},
        **more,
    }


def write_mistral3(
    folder: Path,
    *,
    kind: str = "ministral3",
    n_layer: int = 2,
    images: bool = True,
    change: Change = dict,
    **config: Any,
) -> Path:
    """Write a dense one of Mistral Small 3 (`kind` "mistral", without YaRN) or Ministral 3; with `images` as the model that sees them."""
    folder.mkdir(parents=True)
    rope = {"rope_theta": 1e6} if kind == "mistral" else {"rope_parameters": YARN}
    text = _text_config(kind, n_layer, N_TOKENS, num_key_value_heads=2, head_dim=24, **rope)
    shapes = _dense(n_layer, N_TOKENS)
    if images:
        write_json(folder / "config.json", _wrapped(text, **config))
        shapes = VISION | {f"language_model.{name}": shape for name, shape in shapes.items()}
    else:
        write_json(folder / "config.json", {"architectures": ["Ministral3ForCausalLM"], **text, **config})
    write_shards(folder, change(arrays_of(shapes, 3)), 2)
    shutil.copy(later_file("v13"), folder / "tekken.json")
    return folder


def latent_shapes(n_layer: int, n_vocab: int, n_dense: int, *, stacked: bool) -> Shapes:
    """Names and shapes of a checkpoint with latent attention and shared experts, after `n_dense` dense layers."""
    nope, rope, v = MLA["qk_nope_head_dim"], MLA["qk_rope_head_dim"], MLA["v_head_dim"]
    q, kv, ff = MLA["q_lora_rank"], MLA["kv_lora_rank"], N_FF // 2
    shapes: Shapes = {"model.embed_tokens.weight": (n_vocab, N_EMBD)}
    for layer in range(n_layer):
        p = f"model.layers.{layer}."
        shapes |= {
            p + "input_layernorm.weight": (N_EMBD,),
            p + "self_attn.q_a_proj.weight": (q, N_EMBD),
            p + "self_attn.q_a_layernorm.weight": (q,),
            p + "self_attn.q_b_proj.weight": (N_HEAD * (nope + rope), q),
            p + "self_attn.kv_a_proj_with_mqa.weight": (kv + rope, N_EMBD),
            p + "self_attn.kv_a_layernorm.weight": (kv,),
            p + "self_attn.kv_b_proj.weight": (N_HEAD * (nope + v), kv),
            p + "self_attn.o_proj.weight": (N_EMBD, N_HEAD * v),
            p + "post_attention_layernorm.weight": (N_EMBD,),
        }
        if layer < n_dense:
            shapes |= _mlp(p + "mlp.", N_FF)
            continue
        shapes[p + "mlp.gate.weight"] = (N_EXPERT, N_EMBD)
        shapes |= _mlp(p + "mlp.shared_experts.", ff)
        if stacked:
            shapes[p + "mlp.experts.gate_up_proj"] = (N_EXPERT, 2 * ff, N_EMBD)
            shapes[p + "mlp.experts.down_proj"] = (N_EXPERT, N_EMBD, ff)
        else:
            for expert in range(N_EXPERT):
                shapes |= _mlp(f"{p}mlp.experts.{expert}.", ff)
    return shapes | {"model.norm.weight": (N_EMBD,), "lm_head.weight": (n_vocab, N_EMBD)}


def _mlp(prefix: str, n_ff: int) -> Shapes:
    up, down = (n_ff, N_EMBD), (N_EMBD, n_ff)
    return {f"{prefix}gate_proj.weight": up, f"{prefix}up_proj.weight": up, f"{prefix}down_proj.weight": down}


def write_mistral4(
    folder: Path,
    smol: Path | None = None,
    *,
    n_layer: int = 2,
    n_dense: int = 0,
    stacked: bool = True,
    n_shards: int = 2,
    change: Change = dict,
    **config: Any,
) -> Path:
    """Write a Mistral Small 4 with images; `smol` is a GGUF whose tokenizer it gets instead of a tekken.json."""
    folder.mkdir(parents=True)
    n_vocab = smollm_tokenizer(smol, folder) + 8 if smol else N_TOKENS
    text = _text_config(
        "mistral4",
        n_layer,
        n_vocab,
        num_key_value_heads=N_HEAD,
        moe_intermediate_size=N_FF // 2,
        n_routed_experts=N_EXPERT,
        num_experts_per_tok=N_USED,
        first_k_dense_replace=n_dense,
        routed_scaling_factor=1.5,
        rope_parameters=YARN,
        **MLA,
    )
    write_json(folder / "config.json", _wrapped(text, **config))
    shapes = latent_shapes(n_layer, n_vocab, n_dense, stacked=stacked)
    renamed = {
        name if name.startswith("lm_head") else name.replace("model.", "model.language_model.", 1): shape
        for name, shape in shapes.items()
    }
    vision = {f"model.{name}": shape for name, shape in VISION.items()}
    write_shards(folder, change(arrays_of(vision | renamed, 4)), n_shards)
    if not smol:
        shutil.copy(later_file("v15"), folder / "tekken.json")
    return folder


_LATENT_NAMES = {
    "self_attn.q_a_proj": "attention.wq_a",
    "self_attn.q_a_layernorm": "attention.q_a_norm",
    "self_attn.q_b_proj": "attention.wq_b",
    "self_attn.kv_a_proj_with_mqa": "attention.wkv_a_with_mqa",
    "self_attn.kv_a_layernorm": "attention.kv_a_norm",
    "self_attn.kv_b_proj": "attention.wkv_b",
    "mlp.gate.": "gate.",
    "mlp.shared_experts": "shared_experts",
    "mlp.experts": "experts",
}


def large3_name(name: str) -> str:
    """Mistral's own name of a Hugging Face tensor, with latent attention."""
    for hugging_face, native in _LATENT_NAMES.items():
        name = name.replace(hugging_face, native)
    if "experts" in name:
        for hugging_face, native in (("gate_proj", "w1"), ("down_proj", "w2"), ("up_proj", "w3")):
            name = name.replace(hugging_face, native)
    return native_name(name)


def write_large3(
    folder: Path,
    *,
    n_layer: int = 3,
    n_dense: int = 1,
    images: bool = True,
    change: Change = dict,
    **params: Any,
) -> Path:
    """Write a Mistral Large 3 in Mistral's own layout; its text weights are those of the same tensors of `write_mistral4`'s names."""
    folder.mkdir(parents=True)
    moe = {
        "num_experts": N_EXPERT,
        "num_experts_per_tok": N_USED,
        "expert_hidden_dim": N_FF // 2,
        "first_k_dense_replace": n_dense,
        "route_every_n": 1,
        "num_shared_experts": 1,
        "routed_scale": 1.0,
        "num_expert_groups": 1,
        "num_expert_groups_per_tok": 1,
    }
    written = {
        "dim": N_EMBD,
        "n_layers": n_layer,
        "hidden_dim": N_FF,
        "n_heads": N_HEAD,
        "n_kv_heads": N_HEAD,
        "head_dim": MLA["qk_nope_head_dim"] + MLA["qk_rope_head_dim"],
        "norm_eps": 1e-6,
        "rope_theta": 10000.0,
        "vocab_size": N_TOKENS,
        "tied_embeddings": False,
        "max_position_embeddings": 512,
        "moe": moe,
        **MLA,
        **NATIVE_YARN,
        **({"vision_encoder": {"hidden_size": 8}} if images else {}),
        **params,
    }
    write_json(folder / "params.json", written)
    write_json(folder / "config.json", {})  # llama.cpp's converter opens it
    shapes = {
        large3_name(name): shape
        for name, shape in latent_shapes(n_layer, N_TOKENS, n_dense, stacked=False).items()
    }
    arrays = change(arrays_of(shapes | (NATIVE_VISION if images else {}), 5))
    pack_safetensors(folder / "consolidated.safetensors", arrays)
    shutil.copy(later_file("v15"), folder / "tekken.json")
    (folder / "chat_template.jinja").write_text("{{ bos_token }}{{ messages[0]['content'] }}")
    return folder


def write_native_ministral3(folder: Path, *, n_layer: int = 2, change: Change = dict, **params: Any) -> Path:
    """Write a Ministral 3 in Mistral's own layout."""
    folder.mkdir(parents=True)
    written = {
        "dim": N_EMBD,
        "n_layers": n_layer,
        "hidden_dim": N_FF,
        "n_heads": N_HEAD,
        "n_kv_heads": 2,
        "head_dim": 24,
        "norm_eps": 1e-5,
        "rope_theta": 1e6,
        "vocab_size": N_TOKENS,
        "tied_embeddings": False,
        "max_position_embeddings": 512,
        **NATIVE_YARN,
        "vision_encoder": {"hidden_size": 8},
        **params,
    }
    write_json(folder / "params.json", written)
    shapes = NATIVE_VISION | {native_name(name): shape for name, shape in _dense(n_layer, N_TOKENS).items()}
    pack_safetensors(folder / "consolidated.safetensors", change(arrays_of(shapes, 6)))
    shutil.copy(later_file("v11"), folder / "tekken.json")
    return folder


def smollm_tokenizer(gguf: Path, folder: Path) -> int:
    """Write the tokenizer of a GGUF as tokenizer.json and return how many tokens it has."""
    facts = {key: value.value for key, value in open_gguf(gguf).metadata.items()}
    tokens, types, merges = (
        list(facts[f"tokenizer.ggml.{key}"]) for key in ("tokens", "token_type", "merges")
    )
    file = tokenizer_json(tokens, types, merges, str(facts["tokenizer.ggml.pre"]), None, gguf.name)
    (folder / "tokenizer.json").write_text(json.dumps(file), "utf-8")
    special = {"bos_token": tokens[1], "eos_token": tokens[2], "unk_token": tokens[0]}
    write_json(folder / "tokenizer_config.json", {"tokenizer_class": "PreTrainedTokenizerFast", **special})
    return len(tokens)
