"""Small real GGUF files for the tests of the hub: a header that mixcli accepts, and as many bytes as a test needs."""

from collections.abc import Mapping
from pathlib import Path

import numpy as np

from mixcli.pull.remote_shape import source_of
from profiles.models import known_models
from quantize.file_layout import header_bytes
from quantize.ggml_types import GGMLQuantizationType, GGUFValueType, row_bytes
from quantize.recipe import choose_types
from quantize.source import Value, f32, f32s, i32s, text, texts, u32

F16 = GGMLQuantizationType.F16
N_EMBD, N_FF, N_VOCAB, N_EXPERT = 64, 64, 320, 2


def vocabulary(n_vocab: int) -> dict[str, Value]:
    """Give a SentencePiece vocabulary: three control tokens, all bytes, and words."""
    tokens = ["<unk>", "<s>", "</s>", *(f"<0x{byte:02X}>" for byte in range(256))]
    n_words = n_vocab - len(tokens)
    return {
        "tokenizer.ggml.tokens": texts([*tokens, *(f"t{i}" for i in range(n_words))]),
        "tokenizer.ggml.scores": f32s([0.0] * n_vocab),
        "tokenizer.ggml.token_type": i32s([2, 3, 3, *[6] * 256, *[1] * n_words]),
    }


def metadata(**extra: Value) -> dict[str, Value]:
    """Give what a tiny Mixtral says of itself."""
    return {
        "general.architecture": text("llama"),
        "general.name": text("tiny"),
        "general.license": text("apache-2.0"),
        "llama.block_count": u32(1),
        "llama.context_length": u32(512),
        "llama.embedding_length": u32(N_EMBD),
        "llama.feed_forward_length": u32(N_FF),
        "llama.attention.head_count": u32(4),
        "llama.attention.head_count_kv": u32(2),
        "llama.attention.layer_norm_rms_epsilon": f32(1e-5),
        "llama.expert_count": u32(N_EXPERT),
        "llama.expert_used_count": u32(2),
        "tokenizer.ggml.model": text("llama"),
        **vocabulary(N_VOCAB),
        "tokenizer.ggml.bos_token_id": u32(1),
        "tokenizer.ggml.eos_token_id": u32(2),
        "tokenizer.chat_template": text(
            "{% for m in messages %}[INST] {{ m['content'] }} [/INST]{% endfor %}"
        ),
        **extra,
    }


def shapes(*, split_experts: bool = False, n_vocab_rows: int = N_VOCAB) -> dict[str, tuple[int, ...]]:
    """Give the tensors of one layer; `n_vocab_rows` makes the file larger."""
    kv = N_EMBD // 2
    found: dict[str, tuple[int, ...]] = {
        "output.weight": (n_vocab_rows, N_EMBD),
        "output_norm.weight": (N_EMBD,),
        "token_embd.weight": (n_vocab_rows, N_EMBD),
        "blk.0.attn_k.weight": (kv, N_EMBD),
        "blk.0.attn_norm.weight": (N_EMBD,),
        "blk.0.attn_output.weight": (N_EMBD, N_EMBD),
        "blk.0.attn_q.weight": (N_EMBD, N_EMBD),
        "blk.0.attn_v.weight": (kv, N_EMBD),
        "blk.0.ffn_gate_inp.weight": (N_EXPERT, N_EMBD),
        "blk.0.ffn_norm.weight": (N_EMBD,),
    }
    for kind, shape in (("down", (N_EMBD, N_FF)), ("gate", (N_FF, N_EMBD)), ("up", (N_FF, N_EMBD))):
        if split_experts:
            found |= {f"blk.0.ffn_{kind}.{i}.weight": shape for i in range(N_EXPERT)}
        else:
            found[f"blk.0.ffn_{kind}_exps.weight"] = (N_EXPERT, *shape)
    return found


def gguf(
    size: int = 0,
    *,
    seed: int = 1,
    keys: Mapping[str, Value] | None = None,
    tensors: Mapping[str, tuple[int, ...]] | None = None,
    split_experts: bool = False,
) -> bytes:
    """Give a GGUF of at least `size` bytes, random in its data; the vocabulary grows with it."""
    n_vocab = max(N_VOCAB, size // (4 * N_EMBD) + 1 if size else 0)
    chosen = tensors or shapes(split_experts=split_experts, n_vocab_rows=n_vocab)
    said = dict(metadata() if keys is None else keys)
    if n_vocab > N_VOCAB and keys is None:
        said |= vocabulary(n_vocab)
    entries, at = [], 0
    for name, shape in chosen.items():
        kind = GGMLQuantizationType.F32 if "norm" in name or "gate_inp" in name else F16
        n_bytes = int(np.prod(shape)) * (4 if kind != F16 else 2)
        entries.append((name, kind, shape, at))
        at += -(-n_bytes // 32) * 32
    data = np.random.default_rng(seed).standard_normal(at // 2, np.float32).astype(np.float16)
    return header_bytes(said, entries) + data.tobytes()


def large(name: str, file_type: str) -> tuple[bytes, int]:
    """Give the beginning of a known model's GGUF, with its true tensors, and the size of the whole file."""
    source = source_of(known_models()[name])
    types = choose_types(source, file_type)
    general = {key: value for key, value in metadata().items() if not key.startswith("llama.")}
    keys = {**general, **vocabulary(known_models()[name].n_vocab), **source.metadata}
    entries, at = [], 0
    for tensor in source.tensors:
        entries.append((tensor.name, types[tensor.name], tensor.shape, at))
        at += -(-tensor.n_rows * row_bytes(types[tensor.name], tensor.shape[-1]) // 32) * 32
    header = header_bytes(keys, entries)
    return header + bytes(4 << 20), len(header) + at


def split(count: int, *, seed: int = 1) -> list[bytes]:
    """Give the same model in several parts, the tensors dealt out in order."""
    names = list(shapes())
    parts = []
    for number in range(count):
        mine = names[len(names) * number // count : len(names) * (number + 1) // count]
        keys = {
            **({} if number else metadata()),
            "split.no": Value(GGUFValueType.UINT16, number),
            "split.count": Value(GGUFValueType.UINT16, count),
            "split.tensors.count": Value(GGUFValueType.INT32, len(names)),
        }
        parts.append(gguf(keys=keys, tensors={name: shapes()[name] for name in mine}, seed=seed + number))
    return parts


def write(path: Path, data: bytes) -> Path:
    """Write a file, its folder made where it is not there."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data)
    return path
