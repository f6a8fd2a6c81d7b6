"""Generate a one-layer mixture of experts with random weights (about 3 MB) for the self-test."""

from pathlib import Path

import gguf
import numpy as np
from numpy.typing import NDArray

N_VOCAB, N_EMBD, N_FF, N_HEAD, N_HEAD_KV, N_EXPERT = 512, 256, 256, 4, 2, 4
_HEAD = N_EMBD // N_HEAD

Q4_K, Q6_K, Q8_0, Q4_0 = (gguf.GGMLQuantizationType[name] for name in ("Q4_K", "Q6_K", "Q8_0", "Q4_0"))

# where the 16-bit scales of a block begin, and how many there are (ggml-common.h)
_SCALES_AT = {Q4_K: (0, 2), Q6_K: (208, 1), Q8_0: (0, 1), Q4_0: (0, 1)}

# The types that CPU backends repack or have special kernels for
_TENSORS: dict[str, tuple[tuple[int, ...], gguf.GGMLQuantizationType | None]] = {
    "token_embd.weight": ((N_VOCAB, N_EMBD), Q8_0),
    "output_norm.weight": ((N_EMBD,), None),
    "output.weight": ((N_VOCAB, N_EMBD), Q6_K),
    "blk.0.attn_norm.weight": ((N_EMBD,), None),
    "blk.0.attn_q.weight": ((N_HEAD * _HEAD, N_EMBD), Q4_K),
    "blk.0.attn_k.weight": ((N_HEAD_KV * _HEAD, N_EMBD), Q4_0),
    "blk.0.attn_v.weight": ((N_HEAD_KV * _HEAD, N_EMBD), Q8_0),
    "blk.0.attn_output.weight": ((N_EMBD, N_EMBD), Q4_K),
    "blk.0.ffn_norm.weight": ((N_EMBD,), None),
    "blk.0.ffn_gate_inp.weight": ((N_EXPERT, N_EMBD), None),
    "blk.0.ffn_gate_exps.weight": ((N_EXPERT, N_FF, N_EMBD), Q4_K),
    "blk.0.ffn_up_exps.weight": ((N_EXPERT, N_FF, N_EMBD), Q4_0),
    "blk.0.ffn_down_exps.weight": ((N_EXPERT, N_EMBD, N_FF), Q6_K),
}


def write_tiny_model(path: Path) -> None:
    """Write the model as a GGUF without a vocabulary."""
    writer = gguf.GGUFWriter(path, "llama")
    writer.add_block_count(1)
    writer.add_context_length(256)
    writer.add_embedding_length(N_EMBD)
    writer.add_feed_forward_length(N_FF)
    writer.add_head_count(N_HEAD)
    writer.add_head_count_kv(N_HEAD_KV)
    writer.add_layer_norm_rms_eps(1e-5)
    writer.add_expert_count(N_EXPERT)
    writer.add_expert_used_count(2)
    writer.add_vocab_size(N_VOCAB)
    writer.add_tokenizer_model("none")
    random = np.random.default_rng(0)
    for name, (shape, kind) in _TENSORS.items():
        if kind is None:
            writer.add_tensor(name, random.uniform(-0.5, 0.5, shape).astype(np.float32))
        else:
            writer.add_tensor(name, _blocks(random, shape, kind), raw_dtype=kind)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def _blocks(
    random: np.random.Generator, shape: tuple[int, ...], kind: gguf.GGMLQuantizationType
) -> NDArray[np.uint8]:
    """Fill a quantized tensor with random blocks whose scales are small and finite."""
    n_weights, n_bytes = gguf.GGML_QUANT_SIZES[kind]
    blocks = random.integers(0, 256, (*shape[:-1], shape[-1] // n_weights, n_bytes), np.uint8)
    at, n_scales = _SCALES_AT[kind]
    scale = np.full(n_scales, 0.001, np.float16).view(np.uint8)
    blocks[..., at : at + scale.size] = scale
    return blocks.reshape(*shape[:-1], -1)
