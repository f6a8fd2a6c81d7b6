"""Log-probabilities of the chosen token and of the most likely ones."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from mixcli.engine.token_sampler import Bound, Logits, reaching

MAX_TOP_LOGPROBS = 20  # OpenAI's limit


@dataclass(frozen=True)
class TokenLogprobs:
    """One token's log-probability and the most likely tokens of its place, as (token id, log-probability), the most likely first.

    `top` has the number that was asked for, or as many as a constraint allows; the chosen token need not be among them.
    """

    token: int
    logprob: float
    top: tuple[tuple[int, float], ...] = ()


def log_sum(logits: Logits) -> float:
    """Return log(sum(exp(logits))) of a row, shape (n_vocab,), without overflow."""
    most = float(logits.max())
    return most + float(np.log(np.exp(logits - most).sum(dtype=np.float64)))


def log_softmax(logits: Logits) -> NDArray[np.float64]:
    """Return log-probabilities, shape (..., n_vocab) as the logits'; a token at -inf stays there, each row must have another."""
    shifted: NDArray[np.float64] = logits.astype(np.float64) - logits.max(axis=-1, keepdims=True)
    shifted -= np.log(np.exp(shifted).sum(axis=-1, keepdims=True))
    return shifted


def token_logprobs(logits: Logits, token: int, n_top: int = 0) -> TokenLogprobs:
    """Return the log-probability of `token` and the `n_top` most likely by a row of logits, shape (n_vocab,).

    The row is the model's own: before bias, penalties and temperature, after a constraint's mask where there was one.
    """
    norm = log_sum(logits)
    top: tuple[tuple[int, float], ...] = ()
    if n_top:
        near = reaching(logits, Bound(top_k=n_top).of(logits))
        near = near[np.argsort(-logits[near], kind="stable")[:n_top]]
        top = tuple((int(i), float(logits[i]) - norm) for i in near)
    return TokenLogprobs(token, float(logits[token]) - norm, top)


__all__ = [
    "MAX_TOP_LOGPROBS",
    "TokenLogprobs",
    "log_softmax",
    "log_sum",
    "token_logprobs",
]
