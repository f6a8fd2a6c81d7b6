"""Embeddings of texts: pooled hidden states of a model that was trained for them, in a small context beside the engine's."""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from mixcli.engine.faults import BadLogits, IsOver, always_awaited, check_awaited
from mixcli.llama.batch import Batch
from mixcli.llama.context import Context
from mixcli.llama.model import Model
from profiles.placement import Placement

MEAN, FIRST, LAST = 1, 2, 3  # llama.cpp's llama_pooling_type: over all tokens, the first, or the last
N_BATCH = 512

Vector = NDArray[np.float32]


def pooling_of(model: Model) -> int | None:
    """Return how a model's hidden states are pooled, by the key that llama.cpp's converter writes; None for one that is not made for it."""
    value = model.metadata(f"{model.metadata('general.architecture')}.pooling_type") or ""
    return int(value) if value.isdigit() and int(value) in (MEAN, FIRST, LAST) else None


def embeddings(
    model: Model,
    placement: Placement,
    texts: Sequence[Sequence[int]],
    pooling: int,
    is_over: IsOver = always_awaited,
) -> list[Vector]:
    """Return the embedding of each text (token ids, one at least), shape (n_embd,), of length one.

    Raises DoesNotFit without room for a second, small context, BadLogits where it computes NaN, Abandoned once it `is_over`.
    """
    small = replace(
        placement,
        n_ctx=max(256, *map(len, texts)),
        n_batch=N_BATCH,
        n_ubatch=min(N_BATCH, placement.n_ubatch),
        n_seq_max=1,
    )
    with Context(model, small, embeddings=True) as context:
        return [_embedding(context, tokens, pooling, is_over) for tokens in texts]


def _embedding(context: Context, tokens: Sequence[int], pooling: int, is_over: IsOver) -> Vector:
    context.clear()
    batch = Batch(N_BATCH)
    pooled = np.zeros(context.model.n_embd, np.float64)
    for start in range(0, len(tokens), N_BATCH):
        check_awaited(is_over)
        part = tokens[start : start + N_BATCH]
        batch.clear()
        batch.extend(part, start, 0, n_logits=len(part))
        context.decode(batch)
        for row in range(len(part)):
            at = start + row
            if pooling == MEAN or at == (0 if pooling == FIRST else len(tokens) - 1):
                pooled += context.embedding(row)
    length = float(np.linalg.norm(pooled))
    if not np.isfinite(length):
        raise BadLogits(context.model)
    return (pooled / length if length else pooled).astype(np.float32)
