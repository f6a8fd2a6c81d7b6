"""Small real checkpoints: random weights as real safetensors, beside the real tokenizers that mistral_common ships.

Every byte is a function of the arguments, on every machine and with every version of numpy, so that hashes can be kept.
"""

import json
import shutil
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import mistral_common
import numpy as np
from numpy.typing import NDArray

from tests.support.models import LATER, N_TOKENS, later_file

Arrays = Mapping[str, NDArray[Any]]

_DATA = Path(mistral_common.__file__).parent / "data"
TOKENIZERS = {
    "v1": _DATA / "tokenizer.model.v1",
    "v2": _DATA / "mistral_instruct_tokenizer_240216.model.v2",
    "v3": _DATA / "mistral_instruct_tokenizer_240323.model.v3",
    "v7": _DATA / "mistral_instruct_tokenizer_241114.model.v7",
    "tekken-240718": _DATA / "tekken_240718.json",
    "tekken-240911": _DATA / "tekken_240911.json",
}
N_VOCAB = {
    "v1": 32000,
    "v2": 32768,
    "v3": 32768,
    "v7": 32768,
    "tekken-240718": 131072,
    "tekken-240911": 131072,
}

_DTYPES = {
    "BF16": np.dtype("<u2"),
    "F16": np.dtype("<f2"),
    "F32": np.dtype("<f4"),
    "I64": np.dtype("<i8"),
    "F8_E4M3": np.dtype("u1"),
}


def bf16_values(shape: Sequence[int], seed: int) -> NDArray[np.float32]:
    """Random numbers of both signs between 1/512 and 1/16, exact in BF16 and F16."""
    n = int(np.prod(shape))
    raw = np.random.PCG64(seed).random_raw((n + 3) // 4).view(np.uint16)[:n]
    bits = (raw & np.uint16(0x807F)) | (
        np.uint16(118) + (raw >> 8 & np.uint16(3)) + (raw >> 10 & 1)
    ) << np.uint16(7)
    return (bits.astype(np.uint32) << np.uint32(16)).view(np.float32).reshape(shape)


def pack_safetensors(path: Path, arrays: Arrays, dtype: str = "BF16") -> Path:
    """Write float32 arrays as BF16, F16 or F32 and bytes as FP8 (e4m3); the data lies in the order given."""
    header: dict[str, Any] = {"__metadata__": {"format": "pt"}}
    blobs, at = [], 0
    for name, array in arrays.items():
        kind = "F8_E4M3" if array.dtype == np.uint8 else dtype
        raw = (array.view(np.uint32) >> np.uint32(16)) if kind == "BF16" else array
        blob = raw.astype(_DTYPES[kind]).tobytes()
        header[name] = {"dtype": kind, "shape": list(array.shape), "data_offsets": [at, at + len(blob)]}
        blobs.append(blob)
        at += len(blob)
    return pack_raw_safetensors(path, json.dumps(header).encode(), b"".join(blobs))


def pack_raw_safetensors(path: Path, header: bytes, data: bytes = b"") -> Path:
    """Put a header and data together, whatever they say."""
    path.write_bytes(len(header).to_bytes(8, "little") + header + data)
    return path


def mixtral_shapes(
    *,
    n_layer: int,
    n_embd: int,
    n_ff: int,
    n_head: int,
    n_head_kv: int,
    n_vocab: int,
    n_expert: int,
    head_dim: int = 0,
) -> dict[str, tuple[int, ...]]:
    """Names and shapes of a Hugging Face checkpoint: Mixtral with experts, Mistral and Llama without (n_expert 0)."""
    head_dim = head_dim or n_embd // n_head
    shapes: dict[str, tuple[int, ...]] = {"model.embed_tokens.weight": (n_vocab, n_embd)}
    for layer in range(n_layer):
        p = f"model.layers.{layer}."
        shapes |= {
            p + "input_layernorm.weight": (n_embd,),
            p + "self_attn.q_proj.weight": (n_head * head_dim, n_embd),
            p + "self_attn.k_proj.weight": (n_head_kv * head_dim, n_embd),
            p + "self_attn.v_proj.weight": (n_head_kv * head_dim, n_embd),
            p + "self_attn.o_proj.weight": (n_embd, n_head * head_dim),
            p + "post_attention_layernorm.weight": (n_embd,),
        }
        up, down = (n_ff, n_embd), (n_embd, n_ff)
        if not n_expert:
            shapes |= {
                p + "mlp.gate_proj.weight": up,
                p + "mlp.up_proj.weight": up,
                p + "mlp.down_proj.weight": down,
            }
            continue
        shapes[p + "block_sparse_moe.gate.weight"] = (n_expert, n_embd)
        for expert in range(n_expert):
            e = f"{p}block_sparse_moe.experts.{expert}."
            shapes |= {e + "w1.weight": up, e + "w2.weight": down, e + "w3.weight": up}
    shapes |= {"model.norm.weight": (n_embd,), "lm_head.weight": (n_vocab, n_embd)}
    return shapes


def write_checkpoint(
    folder: Path,
    *,
    architecture: str = "MixtralForCausalLM",
    tokenizer: str | None = "v1",
    n_layer: int = 2,
    n_embd: int = 256,
    n_ff: int = 512,
    n_head: int = 4,
    n_head_kv: int = 2,
    n_expert: int = 4,
    n_vocab: int | None = None,
    n_shards: int = 1,
    dtype: str = "BF16",
    seed: int = 1,
    config: Mapping[str, Any] | None = None,
    change: Callable[[Arrays], Arrays] = dict,
) -> Path:
    """Write a Hugging Face folder; MistralForCausalLM and LlamaForCausalLM have no experts.

    `config` adds to config.json, `change` makes other tensors of the weights.
    """
    folder.mkdir(parents=True, exist_ok=True)
    experts = n_expert if architecture == "MixtralForCausalLM" else 0
    rows = n_vocab or N_VOCAB.get(tokenizer or "", 96)
    shapes = mixtral_shapes(
        n_layer=n_layer,
        n_embd=n_embd,
        n_ff=n_ff,
        n_head=n_head,
        n_head_kv=n_head_kv,
        n_vocab=rows,
        n_expert=experts,
        head_dim=(config or {}).get("head_dim") or 0,
    )
    written: dict[str, Any] = {
        "architectures": [architecture],
        "model_type": architecture.removesuffix("ForCausalLM").lower(),
        "hidden_size": n_embd,
        "intermediate_size": n_ff,
        "num_hidden_layers": n_layer,
        "num_attention_heads": n_head,
        "num_key_value_heads": n_head_kv,
        "max_position_embeddings": 512,
        "rms_norm_eps": 1e-5,
        "rope_theta": 1000000.0,
        "vocab_size": rows,
        "bos_token_id": 1,
        "eos_token_id": 2,
        "torch_dtype": "bfloat16",
        **({"num_local_experts": experts, "num_experts_per_tok": 2} if experts else {}),
        **(config or {}),
    }
    write_json(folder / "config.json", written)
    arrays = {name: bf16_values(shape, seed * 1000 + i) for i, (name, shape) in enumerate(shapes.items())}
    write_shards(folder, change(arrays), n_shards, dtype)
    if tokenizer:
        write_tokenizer(folder, tokenizer)
    return folder


def write_native(
    folder: Path,
    *,
    tokenizer: str = "v3",
    n_layer: int = 2,
    n_embd: int = 256,
    n_ff: int = 512,
    n_head: int = 4,
    n_head_kv: int = 2,
    n_expert: int = 0,
    n_shards: int = 1,
    seed: int = 2,
    params: Mapping[str, Any] | None = None,
    change: Callable[[Arrays], Arrays] = dict,
) -> Path:
    """Write a folder in Mistral's own layout; `params` adds to params.json, `change` makes other tensors of the weights.

    Its weights are those of write_checkpoint.
    """
    folder.mkdir(parents=True, exist_ok=True)
    file = later_file(tokenizer) if tokenizer in LATER else TOKENIZERS[tokenizer]
    rows = N_TOKENS if tokenizer in LATER else N_VOCAB[tokenizer]
    written: dict[str, Any] = {
        "dim": n_embd,
        "n_layers": n_layer,
        "head_dim": n_embd // n_head,
        "hidden_dim": n_ff,
        "n_heads": n_head,
        "n_kv_heads": n_head_kv,
        "norm_eps": 1e-5,
        "vocab_size": rows,
        "rope_theta": 1000000.0,
        **({"moe": {"num_experts": n_expert, "num_experts_per_tok": 2}} if n_expert else {}),
        **(params or {}),
    }
    write_json(folder / "params.json", written)
    shapes = mixtral_shapes(
        n_layer=n_layer,
        n_embd=n_embd,
        n_ff=n_ff,
        n_head=n_head,
        n_head_kv=n_head_kv,
        n_vocab=rows,
        n_expert=n_expert,
    )
    arrays = change(
        {
            native_name(name): bf16_values(shape, seed * 1000 + i)
            for i, (name, shape) in enumerate(shapes.items())
        }
    )
    if n_shards == 1:
        pack_safetensors(folder / "consolidated.safetensors", arrays)
    for i in range(n_shards if n_shards > 1 else 0):
        names = list(arrays)[len(arrays) * i // n_shards : len(arrays) * (i + 1) // n_shards]
        part = {name: arrays[name] for name in names}
        pack_safetensors(folder / f"consolidated-{i + 1:05}-of-{n_shards:05}.safetensors", part)
    shutil.copy(file, folder / ("tekken.json" if file.suffix == ".json" else f"tokenizer.model.{tokenizer}"))
    return folder


_NATIVE = {
    "model.embed_tokens": "tok_embeddings",
    "model.norm": "norm",
    "lm_head": "output",
    "input_layernorm": "attention_norm",
    "post_attention_layernorm": "ffn_norm",
    "self_attn.q_proj": "attention.wq",
    "self_attn.k_proj": "attention.wk",
    "self_attn.v_proj": "attention.wv",
    "self_attn.o_proj": "attention.wo",
    "mlp.gate_proj": "feed_forward.w1",
    "mlp.down_proj": "feed_forward.w2",
    "mlp.up_proj": "feed_forward.w3",
    "block_sparse_moe": "feed_forward",
    "model.layers": "layers",
}


def native_name(name: str) -> str:
    """Mistral's own name of a Hugging Face tensor."""
    for hugging_face, native in _NATIVE.items():
        name = name.replace(hugging_face, native)
    return name


def write_shards(folder: Path, arrays: Arrays, n_shards: int = 1, dtype: str = "BF16") -> None:
    """Write model.safetensors, or that many shards of about equal count with their index."""
    if n_shards == 1:
        pack_safetensors(folder / "model.safetensors", arrays, dtype)
        return
    names, weight_map = list(arrays), {}
    for i in range(n_shards):
        shard = f"model-{i + 1:05}-of-{n_shards:05}.safetensors"
        part = names[len(names) * i // n_shards : len(names) * (i + 1) // n_shards]
        pack_safetensors(folder / shard, {name: arrays[name] for name in part}, dtype)
        weight_map |= dict.fromkeys(part, shard)
    write_json(folder / "model.safetensors.index.json", {"metadata": {}, "weight_map": weight_map})


def write_tokenizer(folder: Path, version: str) -> None:
    """Put one of mistral_common's tokenizers into a folder, with the tokenizer_config.json that such a folder has."""
    if version.startswith("tekken"):
        shutil.copy(TOKENIZERS[version], folder / "tekken.json")
        return
    shutil.copy(TOKENIZERS[version], folder / "tokenizer.model")
    write_json(
        folder / "tokenizer_config.json",
        {
            "tokenizer_class": "LlamaTokenizer",
            "add_bos_token": True,
            "add_eos_token": False,
            "bos_token": "<s>",
            "eos_token": "</s>",
            "unk_token": "<unk>",
            "chat_template": "{% for m in messages %}[INST] {{ m['content'] }} [/INST]{% endfor %}",
        },
    )


def write_json(path: Path, value: object) -> None:
    path.write_text(json.dumps(value), encoding="utf-8")
