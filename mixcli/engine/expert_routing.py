"""Count which experts a text was routed to, by decoding it again in a context that exposes the router."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from mixcli.errors import UsageError
from mixcli.llama.batch import Batch
from mixcli.llama.context import Context
from mixcli.llama.model import Model
from mixcli.llama.observers import NamedTensors
from profiles.placement import Placement

TENSOR = "ffn_moe_topk-"  # llama.cpp's name for the ids of the experts that a layer's router chose; shape (tokens, experts used)
N_BATCH = 256


@dataclass(frozen=True)
class ExpertRouting:
    """How often each layer's router chose each expert for `n_tokens` tokens: a tuple of counts for each layer, all 0 for a dense one."""

    n_expert: int
    n_expert_used: int
    n_tokens: int
    layers: tuple[tuple[int, ...], ...]


class _Counts:
    """Counts the choices for the tokens from `first` on, layer by layer; each layer shows a text's tokens in order, micro-batch by micro-batch."""

    def __init__(self, n_layer: int, n_expert: int, first: int) -> None:
        self.counts = np.zeros((n_layer, n_expert), np.int64)
        self._first = first
        self._n_seen = [0] * n_layer

    def accepts(self, name: str) -> bool:
        return name.startswith(TENSOR)

    def observe(self, name: str, values: "NDArray[np.generic]") -> None:
        layer = int(name.removeprefix(TENSOR))
        rows = np.asarray(values, np.int64).reshape(-1, values.shape[-1])
        chosen = rows[max(0, self._first - self._n_seen[layer]) :]
        self._n_seen[layer] += len(rows)
        self.counts[layer] += np.bincount(chosen.ravel(), minlength=self.counts.shape[1])


def routing(model: Model, placement: Placement, tokens: Sequence[int], first: int) -> ExpertRouting:
    """Return how often each layer's router chose each expert for tokens[first:].

    Raises UsageError for a dense model and DoesNotFit without room for a second, small context.
    """
    architecture = model.metadata("general.architecture")
    n_expert = int(model.metadata(f"{architecture}.expert_count") or 0)
    if not n_expert:
        raise UsageError(f"{model.path.name} is a dense model: it has no experts")
    counts = _Counts(model.n_layer, n_expert, first)
    small = replace(
        placement,
        n_ctx=max(256, len(tokens)),
        n_batch=N_BATCH,
        n_ubatch=min(N_BATCH, placement.n_ubatch),
        n_seq_max=1,
    )
    with Context(model, small, tap=NamedTensors(counts)) as context:
        batch = Batch(N_BATCH)
        for start in range(0, len(tokens), N_BATCH):
            part = tokens[start : start + N_BATCH]
            batch.clear()
            batch.extend(part, start, 0, n_logits=len(part))
            context.decode(batch)
    return ExpertRouting(
        n_expert,
        int(model.metadata(f"{architecture}.expert_used_count") or 0),
        len(tokens) - first,
        tuple(tuple(layer) for layer in counts.counts.tolist()),
    )
