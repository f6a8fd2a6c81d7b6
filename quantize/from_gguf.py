"""Convert a dense GGUF back to a Hugging Face folder: config.json, model.safetensors, tokenizer.json, model card.

The way back for models that are at hand only as GGUF. Weights are dequantized and rounded to BF16; norms stay float32.
"""

import json
import os
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from quantize.errors import MalformedFile, Unsupported
from quantize.safetensors_writer import named_errors, write_safetensors
from quantize.source import TensorSource
from quantize.sources.checkpoint import Checkpoint, open_checkpoint
from quantize.sources.gguf_source import open_gguf
from quantize.sources.rope import split_pairs
from quantize.vocab.bpe import tokenizer_json
from quantize.wording import counted, shown

Facts = Mapping[str, Any]  # GGUF metadata, plain values

_NAMES = {
    "attn_norm": "input_layernorm",
    "ffn_norm": "post_attention_layernorm",
    "attn_q": "self_attn.q_proj",
    "attn_k": "self_attn.k_proj",
    "attn_v": "self_attn.v_proj",
    "attn_output": "self_attn.o_proj",
    "ffn_gate": "mlp.gate_proj",
    "ffn_up": "mlp.up_proj",
    "ffn_down": "mlp.down_proj",
}
_WHOLE = {
    "token_embd.weight": "model.embed_tokens.weight",
    "output_norm.weight": "model.norm.weight",
    "output.weight": "lm_head.weight",
}
_CONFIG = {  # config.json's name -> GGUF's
    "num_hidden_layers": "llama.block_count",
    "max_position_embeddings": "llama.context_length",
    "hidden_size": "llama.embedding_length",
    "intermediate_size": "llama.feed_forward_length",
    "num_attention_heads": "llama.attention.head_count",
    "num_key_value_heads": "llama.attention.head_count_kv",
    "rms_norm_eps": "llama.attention.layer_norm_rms_epsilon",
    "rope_theta": "llama.rope.freq_base",
}
_TYPE_LABEL = re.compile(r"[.-](I?Q\d\w*|BF16|F16|F32)$", re.IGNORECASE)
_SPECIAL = {"bos": "bos", "eos": "eos", "unk": "unknown", "pad": "padding"}


def checkpoint_from_gguf(
    gguf: Path, folder: Path, name: str | None = None, chat_template: str | None = None
) -> Checkpoint:
    """Write a dense `llama` GGUF with a byte-level BPE vocabulary into `folder` and open it.

    `name` goes into its card; without one it is the file's name without its type (Model.Q4_1.gguf: Model). `chat_template` takes
    the place of the file's own.

    config.json is written last, so that a folder that has one is whole. Raises Unsupported for another architecture, for a
    mixture of experts or for another tokenizer, CorruptFile for a broken file.
    """
    model = open_gguf(gguf)
    facts = {key: value.value for key, value in model.metadata.items()}
    architecture = facts.get("general.architecture")
    if architecture != "llama" or facts.get("llama.expert_count"):
        kind = "a mixture of experts" if architecture == "llama" else f"a {architecture} model"
        raise Unsupported(f"{gguf.name} is {kind}; only dense llama models can be converted to a folder")
    tokenizer, tokenizer_config = _tokenizer(facts, gguf.name)
    if chat_template is not None:
        tokenizer_config["chat_template"] = chat_template
    config = _config(facts, model.tensors, gguf.name)
    folder.mkdir(parents=True, exist_ok=True)
    _write_json(folder / "tokenizer.json", tokenizer)
    _write_json(folder / "tokenizer_config.json", tokenizer_config)
    (folder / "README.md").write_text(_card(facts, name or _TYPE_LABEL.sub("", gguf.stem)), encoding="utf-8")
    write_safetensors(folder / "model.safetensors", _tensors(model.tensors, config["head_dim"], gguf.name))
    _write_json(folder / "config.json", config)
    return open_checkpoint(folder)


def _tensors(tensors: Iterable[TensorSource], head_size: int, where: str) -> Iterator[TensorSource]:
    for tensor in tensors:
        if tensor.name == "rope_freqs.weight":
            raise Unsupported(
                f"{where} uses RoPE scaling (rope_freqs); convert the original checkpoint instead"
            )
        dtype = "F32" if len(tensor.shape) == 1 else "BF16"
        source = replace(tensor, name=_original_name(tensor.name, where), dtype=dtype, read_raw=None)
        halves = tensor.name.endswith(("attn_q.weight", "attn_k.weight", "attn_q.bias", "attn_k.bias"))
        yield split_pairs(source, head_size) if halves else source


def _original_name(name: str, where: str) -> str:
    if name in _WHOLE:
        return _WHOLE[name]
    first, _, rest = name.partition(".")
    layer, _, rest = rest.partition(".")
    kind, _, suffix = rest.partition(".")
    if first != "blk" or not layer.isdecimal() or kind not in _NAMES or suffix not in ("weight", "bias"):
        raise Unsupported(f"{where} has the tensor {name!r}, which is not part of a dense llama model")
    return f"model.layers.{layer}.{_NAMES[kind]}.{suffix}"


def _config(facts: Facts, tensors: Iterable[TensorSource], where: str) -> dict[str, Any]:
    config: dict[str, Any] = {
        "architectures": ["LlamaForCausalLM"],
        "model_type": "llama",
        "hidden_act": "silu",
    }
    for key, name in _CONFIG.items():
        value = facts.get(name, 10000.0 if key == "rope_theta" else None)
        if not isinstance(value, int | float) or value <= 0:
            raise MalformedFile(f"{where} has {name} = {shown(value)}")
        # A float32 is written with the digits that it needs, 1e-05 and not 9.999999747378752e-06.
        config[key] = value if isinstance(value, int) else float(str(np.float32(value)))
    heads = config["num_attention_heads"]
    config["head_dim"] = facts.get("llama.attention.key_length", config["hidden_size"] // heads)
    shapes = {tensor.name: tensor.shape for tensor in tensors}
    config["tie_word_embeddings"] = "output.weight" not in shapes
    if "token_embd.weight" not in shapes:
        raise MalformedFile(f"{where} has no token_embd.weight")
    config["vocab_size"] = shapes["token_embd.weight"][0]
    for kind, key in _SPECIAL.items():
        if (index := facts.get(f"tokenizer.ggml.{key}_token_id")) is not None:
            config[f"{kind}_token_id"] = index
    config["torch_dtype"] = "bfloat16"
    return config


def _tokenizer(facts: Facts, where: str) -> tuple[dict[str, Any], dict[str, Any]]:
    if (model := facts.get("tokenizer.ggml.model")) != "gpt2":
        raise Unsupported(f"{where} has a {model} tokenizer; only byte-level BPE (gpt2) can be written back")
    tokens = list(facts.get("tokenizer.ggml.tokens", ()))
    types = list(facts.get("tokenizer.ggml.token_type", (1,) * len(tokens)))
    if not tokens or len(types) != len(tokens):
        raise MalformedFile(
            f"{where} has {counted(len(tokens), 'token')} and {counted(len(types), 'token type')}"
        )
    config: dict[str, Any] = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "clean_up_tokenization_spaces": False,
    }
    for kind, key in _SPECIAL.items():
        index = facts.get(f"tokenizer.ggml.{key}_token_id")
        if isinstance(index, int) and index < len(tokens):
            config[f"{kind}_token"] = tokens[index]
    adds = {kind: facts.get(f"tokenizer.ggml.add_{kind}_token") for kind in ("bos", "eos")}
    config |= {f"add_{kind}_token": value for kind, value in adds.items() if value is not None}
    if isinstance(prefix := facts.get("tokenizer.ggml.add_space_prefix"), bool):
        config["add_prefix_space"] = prefix
    if isinstance(template := facts.get("tokenizer.chat_template"), str):
        config["chat_template"] = template
    bos = config.get("bos_token") if adds["bos"] else None
    merges = list(facts.get("tokenizer.ggml.merges", ()))
    return tokenizer_json(tokens, types, merges, str(facts.get("tokenizer.ggml.pre")), bos, where), config


def _card(facts: Facts, name: str) -> str:
    """Return a model card whose front matter carries name, license and languages on."""
    entries: Mapping[str, Any] = {
        "model_name": name,
        "license": facts.get("general.license"),
        "language": list(facts.get("general.languages", ())) or None,
    }
    lines = [f"{key}: {json.dumps(value)}" for key, value in entries.items() if value is not None]
    return "\n".join(["---", *lines, "---", f"{name}, dequantized to BF16 from a GGUF file.", ""])


def _write_json(path: Path, value: object) -> None:
    """Write a file whole or not at all, also where the power fails: config.json says that a folder is whole."""
    part = path.with_name(f"{path.name}.part")
    with named_errors(part), part.open("w", encoding="utf-8") as file:
        json.dump(value, file, ensure_ascii=False, indent=1)
        file.flush()
        os.fsync(file.fileno())
    part.replace(path)
