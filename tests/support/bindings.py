"""Logits of a file by llama_cpp.Llama, which knows nothing of mixcli, beside those of mixcli's own context."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from llama_cpp import Llama
from numpy.typing import NDArray

from mixcli.llama.model import Model
from tests.support.greedy import logits_after
from tests.support.models import PLACEMENT
from tests.support.side_by_side import apart

SAME = 1e-3  # of the logits' spread: both run the same kernels, in batches of the same size


def logits_of_bindings(path: Path, tokens: Sequence[int]) -> NDArray[np.float32]:
    """Return the logits behind every token, (n_tokens, vocabulary)."""
    llama = Llama(
        str(path),
        n_ctx=PLACEMENT.n_ctx,
        n_batch=PLACEMENT.n_batch,
        n_threads=1,
        n_threads_batch=1,
        logits_all=True,
        flash_attn=PLACEMENT.flash_attn,
        verbose=False,
    )
    llama.eval(list(tokens))
    found = llama.scores[: len(tokens)].copy()
    llama.close()
    return found


def distance_from_bindings(path: Path, tokens: Sequence[int]) -> float:
    """Return how far mixcli's logits are from those of llama_cpp.Llama at most, as a share of their spread; below SAME they are the same."""
    with Model.load(path, PLACEMENT) as model:
        ours = logits_after(model, tokens, n_last=len(tokens))
    return max(map(apart, ours, logits_of_bindings(path, tokens)))


__all__ = ["SAME", "distance_from_bindings", "logits_of_bindings"]
