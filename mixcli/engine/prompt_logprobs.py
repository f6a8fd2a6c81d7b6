"""Log-probabilities of the tokens of a prompt, in a small context beside the engine's."""

import math
from collections.abc import Sequence
from dataclasses import replace

from mixcli.engine.faults import BadLogits, IsOver, always_awaited, check_awaited
from mixcli.engine.logprobs import TokenLogprobs, token_logprobs
from mixcli.llama.batch import Batch
from mixcli.llama.context import Context
from mixcli.llama.model import Model
from profiles.placement import Placement

N_BATCH = 128  # rows of logits at a time: 128 of 131,072 floats are 64 MiB


def prompt_logprobs(
    model: Model,
    placement: Placement,
    tokens: Sequence[int],
    n_top: int,
    is_over: IsOver = always_awaited,
) -> list[TokenLogprobs | None]:
    """Return the log-probability of each token after those before it, with the `n_top` most likely of its place; None for the first.

    Raises DoesNotFit without room for a second, small context, BadLogits where it computes NaN, Abandoned once it `is_over`.
    """
    small = replace(
        placement,
        n_ctx=max(256, len(tokens)),
        n_batch=N_BATCH,
        n_ubatch=min(N_BATCH, placement.n_ubatch),
        n_seq_max=1,
    )
    found: list[TokenLogprobs | None] = [None]
    with Context(model, small) as context:
        batch = Batch(N_BATCH)
        for start in range(0, len(tokens) - 1, N_BATCH):
            part = tokens[start : min(start + N_BATCH, len(tokens) - 1)]
            check_awaited(is_over)
            batch.clear()
            batch.extend(part, start, 0, n_logits=len(part))
            context.decode(batch)
            for row in range(len(part)):
                one = token_logprobs(context.logits(row), tokens[start + row + 1], n_top)
                if math.isnan(one.logprob):
                    raise BadLogits(model)
                found.append(one)
    return found[: len(tokens)]
