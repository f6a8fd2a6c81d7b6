"""Count which experts a text was routed to, by decoding it again in a context that exposes the router."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from mixcli.engine.faults import IsOver, always_awaited, check_awaited
from mixcli.llama.batch import Batch
from mixcli.llama.context import Context
from mixcli.llama.expert_choices import ExpertChoices, expert_numbers
from mixcli.llama.model import Model
from mixcli.llama.observers import NamedTensors
from profiles.placement import Placement

N_BATCH = 256


@dataclass(frozen=True)
class ExpertRouting:
    """How often each layer's router chose each expert for `n_tokens` tokens: a tuple of counts for each layer, all 0 for a dense one."""

    n_expert: int
    n_expert_used: int
    n_tokens: int
    layers: tuple[tuple[int, ...], ...]


def routing(
    model: Model,
    placement: Placement,
    tokens: Sequence[int],
    first: int,
    is_over: IsOver = always_awaited,
) -> ExpertRouting:
    """Return how often each layer's router chose each expert for tokens[first:].

    Raises UsageError for a dense model, DoesNotFit without room for a second, small context, Abandoned once it `is_over`.
    """
    n_expert, n_used = expert_numbers(model)
    counts = np.zeros((model.n_layer, n_expert), np.int64)
    choices = ExpertChoices()
    small = replace(
        placement,
        n_ctx=max(256, len(tokens)),
        n_batch=N_BATCH,
        n_ubatch=min(N_BATCH, placement.n_ubatch),
        n_seq_max=1,
    )
    with Context(model, small, tap=NamedTensors(choices)) as context:
        batch = Batch(N_BATCH)
        for start in range(0, len(tokens), N_BATCH):
            check_awaited(is_over)
            part = tokens[start : start + N_BATCH]
            batch.clear()
            batch.extend(part, start, 0, n_logits=len(part))
            context.decode(batch)
            for layer, rows in choices.take().items():
                counts[layer] += np.bincount(rows[max(0, first - start) :].ravel(), minlength=n_expert)
    return ExpertRouting(
        n_expert,
        n_used,
        len(tokens) - first,
        tuple(tuple(layer) for layer in counts.tolist()),
    )
