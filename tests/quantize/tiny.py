"""Tiny random models as the writer takes them, with Mixtral's and Mistral's tensor names and shapes."""

import json
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from quantize.ggml_types import GGMLQuantizationType
from quantize.imatrix import Imatrix
from quantize.plan import plan_write
from quantize.safetensors_writer import write_safetensors
from quantize.source import ModelSource, TensorSource, f32, text, texts, u32
from quantize.sources.checkpoint import TOKENIZER_FILES, Checkpoint
from quantize.writer import Progress, WriteReport, execute

Arrays = dict[str, NDArray[np.float32]]


def as_bf16(values: NDArray[np.float32]) -> NDArray[np.float32]:
    """Cut float32 down to values that bfloat16 holds."""
    return (values.view(np.uint32) & np.uint32(0xFFFF0000)).view(np.float32)


def random_weights(
    *,
    n_layer: int = 2,
    n_embd: int = 256,
    n_ff: int = 512,
    n_expert: int = 8,
    n_vocab: int = 96,
    n_head: int = 4,
    n_head_kv: int = 2,
    seed: int = 7,
) -> Arrays:
    rng = np.random.default_rng(seed)
    n_kv = n_embd // n_head * n_head_kv
    experts = (n_expert,) if n_expert else ()
    suffix = "_exps" if n_expert else ""
    shapes: dict[str, tuple[int, ...]] = {"token_embd": (n_vocab, n_embd)}
    for i in range(n_layer):
        shapes |= {
            f"blk.{i}.attn_q": (n_embd, n_embd),
            f"blk.{i}.attn_k": (n_kv, n_embd),
            f"blk.{i}.attn_v": (n_kv, n_embd),
            f"blk.{i}.attn_output": (n_embd, n_embd),
            f"blk.{i}.attn_norm": (n_embd,),
            f"blk.{i}.ffn_norm": (n_embd,),
            f"blk.{i}.ffn_gate{suffix}": (*experts, n_ff, n_embd),
            f"blk.{i}.ffn_up{suffix}": (*experts, n_ff, n_embd),
            f"blk.{i}.ffn_down{suffix}": (*experts, n_embd, n_ff),
        }
        if n_expert:
            shapes[f"blk.{i}.ffn_gate_inp"] = (n_expert, n_embd)
    shapes |= {"output_norm": (n_embd,), "output": (n_vocab, n_embd)}
    return {
        f"{name}.weight": as_bf16(rng.standard_normal(shape, dtype=np.float32) * np.float32(0.05))
        for name, shape in shapes.items()
    }


def model_of(weights: Mapping[str, NDArray[np.float32]], fingerprint: str = "tiny") -> ModelSource:
    """Wrap arrays as a ModelSource, hyperparameters read off their shapes."""
    n_vocab, n_embd = weights["token_embd.weight"].shape
    n_layer = sum(name.endswith("attn_q.weight") for name in weights)
    n_head = 4
    n_kv = weights["blk.0.attn_k.weight"].shape[0] * n_head // n_embd
    stacked = weights.get("blk.0.ffn_up_exps.weight")
    dense = weights.get("blk.0.ffn_up.weight")
    n_ff = (dense if stacked is None else stacked).shape[-2]  # type: ignore[union-attr]
    metadata = {
        "general.architecture": text("llama"),
        "general.name": text("tiny"),
        "llama.block_count": u32(n_layer),
        "llama.context_length": u32(512),
        "llama.embedding_length": u32(n_embd),
        "llama.feed_forward_length": u32(n_ff),
        "llama.attention.head_count": u32(n_head),
        "llama.attention.head_count_kv": u32(n_kv),
        "llama.attention.layer_norm_rms_epsilon": f32(1e-5),
        "llama.vocab_size": u32(n_vocab),
        "tokenizer.ggml.tokens": texts([f"t{i}" for i in range(n_vocab)]),
    }
    if stacked is not None:
        metadata |= {"llama.expert_count": u32(stacked.shape[0]), "llama.expert_used_count": u32(2)}
    return ModelSource(metadata, [tensor_of(name, values) for name, values in weights.items()], fingerprint)


def tensor_of(name: str, values: NDArray[np.float32]) -> TensorSource:
    rows = values.reshape(-1, values.shape[-1])
    return TensorSource(name, values.shape, "F32", lambda start, stop: rows[start:stop], f"tiny: {name}")


def write_gguf(
    model: ModelSource,
    target: Path,
    types: Mapping[str, GGMLQuantizationType],
    file_type: str,
    *,
    imatrix: Imatrix | None = None,
    n_threads: int = 0,
    max_memory: int = 1 << 30,
    split_max_size: int = 0,
    progress: Callable[[Progress], None] | None = None,
) -> WriteReport:
    """Plan and write a model with the given tensor types."""
    plan = plan_write(
        model,
        target,
        types,
        file_type,
        imatrix=imatrix,
        n_threads=n_threads,
        max_memory=max_memory,
        split_max_size=split_max_size,
    )
    return execute(plan, progress)


def save_checkpoint(checkpoint: Checkpoint, folder: Path) -> None:
    """Write a checkpoint, or a view of one such as `upcycle` gives, as a folder of its own."""
    folder.mkdir(parents=True, exist_ok=True)
    for name in TOKENIZER_FILES:
        if (checkpoint.folder / name).is_file():
            shutil.copyfile(checkpoint.folder / name, folder / name)
    write_safetensors(folder / "model.safetensors", checkpoint.tensors.values())
    (folder / checkpoint.layout.value).write_text(json.dumps(checkpoint.config, indent=1), encoding="utf-8")
