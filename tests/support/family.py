"""Small models of each architecture of the family: their dimensions, and files with zeros or random weights."""

from collections.abc import Mapping
from dataclasses import replace
from math import prod
from pathlib import Path

import numpy as np

from mixcli.pull.remote_shape import source_of
from profiles.dimensions import Router
from profiles.models import ModelFacts
from quantize.file_layout import header_bytes
from quantize.ggml_types import GGMLQuantizationType as Type
from quantize.ggml_types import row_bytes
from quantize.recipe import base_type
from quantize.source import Value, text, u32
from tests.support.small_gguf import vocabulary

Tensors = dict[str, tuple[Type, tuple[int, ...]]]
N_VOCAB = 320

_MIXTURE = ModelFacts(
    n_layer=2,
    n_embd=64,
    n_ff=96,
    n_head=4,
    n_head_kv=4,
    n_expert=8,
    n_expert_used=2,
    n_vocab=N_VOCAB,
    n_ctx_train=512,
    architecture="mistral4",
    n_head_dim=24,
    n_head_dim_v=16,
    n_rot=8,
    q_lora_rank=32,
    kv_lora_rank=24,
    n_ff_expert=32,
    n_expert_shared=1,
)
# widths are no multiples of one another, so that a confusion of two of them shows
FAMILY: dict[str, ModelFacts] = {
    "llama": ModelFacts(2, 64, 96, 4, 2, 4, 2, N_VOCAB, 512),
    "mistral3": ModelFacts(
        2, 64, 96, 4, 2, 0, 0, N_VOCAB, 512, architecture="mistral3", n_head_dim=32, tied=True, temperature_length=64
    ),
    "mistral4": _MIXTURE,
    "mistral4, gate and up in one": replace(_MIXTURE, is_fused=True),
    "deepseek2": replace(_MIXTURE, architecture="deepseek2", n_layer=3, n_layer_dense=1, temperature_length=64),
    "deepseek2, grouped and biased": replace(
        _MIXTURE, architecture="deepseek2", router=Router(2, scale=2.5, is_biased=True, n_groups=4, n_groups_used=2)
    ),
    "deepseek2, without a rank of queries": replace(_MIXTURE, architecture="deepseek2", q_lora_rank=0),
}  # fmt: skip


def parts_of(facts: ModelFacts) -> tuple[dict[str, Value], Tensors]:
    """Return the metadata and tensors of a model of those dimensions, in F32 and F16."""
    source = source_of(facts)
    metadata = {
        **source.metadata,
        "general.name": text(f"small {facts.architecture}"),
        "tokenizer.ggml.model": text("llama"),
        **vocabulary(facts.n_vocab),
        "tokenizer.ggml.bos_token_id": u32(1),
        "tokenizer.ggml.eos_token_id": u32(2),
    }
    types = {one.name: Type.F32 if base_type(one) == Type.F32 else Type.F16 for one in source.tensors}
    return metadata, {one.name: (types[one.name], one.shape) for one in source.tensors}


def write_parts(path: Path, metadata: Mapping[str, Value], tensors: Tensors, seed: int | None = None) -> Path:
    """Write a GGUF: zeros, or random weights that leave activations about as large as they are."""
    entries, offset = [], 0
    for name, (kind, shape) in tensors.items():
        entries.append((name, kind, shape, offset))
        offset += -(-row_bytes(kind, shape[-1]) * prod(shape[:-1]) // 32) * 32
    header = header_bytes(metadata, entries)
    random = np.random.default_rng(seed)
    with path.open("wb") as file:
        file.write(header)
        file.truncate(len(header) + offset)
        for name, kind, shape, at in entries if seed is not None else ():
            weights = random.standard_normal(shape, np.float32) / shape[-1] ** 0.5
            file.seek(len(header) + at)
            file.write(
                (np.ones(shape, np.float32) if "_norm" in name else weights).astype(
                    "<f4" if kind == Type.F32 else "<f2"
                )
            )
    return path


def write_small(path: Path, name: str, seed: int | None = 0) -> Path:
    """Write the small model of that name in FAMILY."""
    return write_parts(path, *parts_of(FAMILY[name]), seed)
