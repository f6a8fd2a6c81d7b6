"""Greedy answers of two ways to compute them: the same tokens, up to those that rounding decides."""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from mixcli.engine.engine import Engine
from mixcli.engine.sampling import SamplingParams
from mixcli.engine.sequence import Output, Request
from mixcli.llama.batch import Batch
from mixcli.llama.context import Context
from mixcli.llama.model import Model
from tests.support.models import PLACEMENT

TIE = 1.0  # of a logit (their standard deviation is 4): two tokens so close may change places when others are computed beside them
MAX_STEPS = 20_000


def run(engine: Engine, requests: Sequence[Request]) -> dict[str, list[Output]]:
    """Add all, step to the end; every output of every request."""
    found: dict[str, list[Output]] = {request.id: [] for request in requests}
    for request in requests:
        engine.add(request)
    for _ in range(MAX_STEPS):
        for output in engine.step():
            found[output.id].append(output)
        if not engine.has_work:
            return found
    raise AssertionError("the requests do not end")


def tokens_of(outputs: Sequence[Output]) -> list[int]:
    return [token for output in outputs for token in output.token_ids]


def logits_after(model: Model, tokens: Sequence[int], n_last: int = 1) -> NDArray[np.float32]:
    """The logits behind the last tokens of a text that is computed alone; shape (n_last, vocabulary)."""
    batch = Batch(max(len(tokens), 32))
    batch.extend(list(tokens), 0, 0, n_logits=n_last)
    with Context(model, replace(PLACEMENT, n_batch=batch.capacity, n_ubatch=batch.capacity)) as context:
        context.decode(batch)
        return np.stack([context.logits(i) for i in range(len(tokens) - n_last, len(tokens))]).copy()


def assert_same_up_to_ties(model: Model, prompt: Sequence[int], first: list[int], second: list[int]) -> None:
    """Two greedy answers may part only where their two tokens are equally likely up to rounding."""
    n = next((i for i, pair in enumerate(zip(first, second, strict=False)) if pair[0] != pair[1]), None)
    if n is None:
        assert first == second
        return
    (logits,) = logits_after(model, [*prompt, *first[:n]])
    assert abs(float(logits[first[n]] - logits[second[n]])) < TIE


def answered(engine: Engine, prompt: Sequence[int], max_tokens: int = 64) -> tuple[list[int], Output]:
    """Return the likeliest tokens after a prompt, and the last output."""
    request = Request("asked", tuple(prompt), SamplingParams(temperature=0, max_tokens=max_tokens))
    outputs = run(engine, [request])["asked"]
    return tokens_of(outputs), outputs[-1]


__all__ = ["answered", "assert_same_up_to_ties", "logits_after", "run", "tokens_of"]
