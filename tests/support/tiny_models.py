"""Whole models of two layers whose every byte is a token: they load and compute in milliseconds."""

from collections.abc import Mapping
from pathlib import Path

from quantize.recipe import choose_types
from quantize.source import ModelSource, Value, flag, text, u32
from tests.quantize.tiny import model_of, random_weights, write_gguf
from tests.support.small_gguf import vocabulary

N_VOCAB = 320


def tiny_model(
    path: Path, *, n_expert: int = 4, seed: int = 7, file_type: str = "F16", n_vocab: int = N_VOCAB,
    changes: Mapping[str, Value] | None = None,
) -> Path:  # fmt: skip
    """Write a model with random weights: a mixture of `n_expert` experts, dense with 0; without a chat template."""
    bare = model_of(random_weights(n_embd=256, n_ff=256, n_expert=n_expert, n_vocab=n_vocab, seed=seed))
    metadata = {
        **bare.metadata,
        "tokenizer.ggml.model": text("llama"),
        **vocabulary(n_vocab),
        "tokenizer.ggml.bos_token_id": u32(1),
        "tokenizer.ggml.eos_token_id": u32(2),
        "tokenizer.ggml.add_bos_token": flag(True),
        "tokenizer.ggml.add_space_prefix": flag(False),
        "llama.rope.dimension_count": u32(64),
        **(changes or {}),
    }
    model = ModelSource(metadata, bare.tensors, bare.fingerprint)
    write_gguf(model, path, choose_types(model, file_type), file_type)
    return path
