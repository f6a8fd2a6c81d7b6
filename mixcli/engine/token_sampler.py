"""Choose a request's next token from a row of logits with llama.cpp's samplers, over the tokens that can matter.

Handing 49,152 candidates to the native chain costs more than choosing. What the first stages do is known beforehand:

- bias, penalties and DRY change the logits of tokens that were named or seen, so only those are looked at;
- temperature 0 is the first maximum;
- `top_k`, and `min_p` where nothing before it needs a probability, keep nothing below a bound that the row itself gives;
- `top_n_sigma` is a bound (computed here, so that what falls below is gone; llama.cpp sets it to -inf, which typical_p turns into NaN).

The chain then runs on what is left, so the same token comes out; among candidates with exactly equal logits it may be another of them.
Tokens at -inf, which a constraint forbids, are never candidates.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from mixcli.errors import MixcliError
from mixcli.llama.candidates import Candidates
from mixcli.llama.sampler import Sampler

Logits = NDArray[np.float32]

_MIN_LOGIT = float(np.finfo(np.float32).min)  # every logit but -inf is at least this
_WIDTH = 64  # tokens per block when a bound for top_k is looked for
_SLACK = 1e-3  # the bound for min_p is this much too low, whatever way its logarithm is rounded; the native stage decides


class NothingToChoose(MixcliError):
    """Every token is forbidden."""


@dataclass(frozen=True)
class Bound:
    """What the stages at the head of a chain keep nothing below; 0 where a stage is off or one before it needs all tokens."""

    top_k: int = 0
    min_p: float = 0.0
    top_n_sigma: float = 0.0

    def of(self, logits: Logits) -> float:
        """Return a logit that each token kept by these stages reaches."""
        bound = _MIN_LOGIT
        if self.top_n_sigma > 0:
            bound = max(bound, _sigma_bound(logits, self.top_n_sigma))
        if self.top_k:
            bound = max(bound, _kth_bound(logits, self.top_k))
        elif self.min_p > 0:
            best = float(logits.max())
            bound = max(bound, best + float(np.log(self.min_p)) - _SLACK * max(1.0, abs(best)))
        return bound


def _kth_bound(logits: Logits, k: int) -> float:
    """Return a lower bound of the k-th greatest logit, close to it: the k-th greatest of the blocks' maxima.

    k blocks have a maximum of at least that, so at least k tokens reach it. A third of the cost of a partition of the row.
    """
    n_blocks = len(logits) // _WIDTH
    if 4 * k > n_blocks:
        return (
            float(np.partition(logits, len(logits) - k)[len(logits) - k]) if k < len(logits) else _MIN_LOGIT
        )
    maxima = logits[: n_blocks * _WIDTH].reshape(_WIDTH, n_blocks).max(axis=0)
    return float(np.partition(maxima, n_blocks - k)[n_blocks - k])


def _sigma_bound(logits: Logits, n: float) -> float:
    """Return the best logit less n standard deviations of all that are allowed (Top-nσ, arXiv 2411.07641)."""
    allowed = logits[logits >= _MIN_LOGIT]
    return float(allowed.max()) - n * float(allowed.std(dtype=np.float64)) if allowed.size > 1 else _MIN_LOGIT


def reaching(logits: Logits, bound: float) -> NDArray[np.intp]:
    """Return the tokens whose logit reaches a bound, ascending. Few do, so eight at a time are looked at where they divide evenly."""
    reaches = logits >= bound
    if len(reaches) % 8:
        return np.flatnonzero(reaches)
    eights = np.flatnonzero(reaches.view(np.uint64) != 0)
    ids: NDArray[np.intp] = (eights[:, np.newaxis] * 8 + np.arange(8)).ravel()
    return ids[reaches[ids]]


class TokenSampler:
    """Choose the tokens of one request; remember the chosen ones, for penalties and random draws.

    `bias` is added first. `adjust` are the stages that change the logits of `seen` tokens and of those chosen later (None: no
    such stages), `draw` those that filter and draw (None: take the most likely). Owns both chains.
    """

    def __init__(
        self,
        candidates: Candidates,
        *,
        bias: Mapping[int, float] | None = None,
        adjust: Sampler | None = None,
        seen: Iterable[int] = (),
        draw: Sampler | None = None,
        bound: Bound | None = None,
    ) -> None:
        bias = bias or {}
        self._candidates = candidates
        self._adjust, self._draw = adjust, draw
        self._bound = bound or Bound()
        self._touched = {*bias, *seen}
        self._ids = np.array(sorted(self._touched), np.int32)
        self._bias = np.array([bias.get(token, 0.0) for token in self._ids.tolist()], np.float32)

    def choose(self, logits: Logits) -> int:
        """Return the next token by a row of logits, shape (n_vocab,), which is left as it was; remember the token.

        Raises NothingToChoose when all are -inf.
        """
        if self._adjust is None and not self._ids.size:
            return self._pick(logits)
        before = logits[self._ids]
        logits[self._ids] = self._adjusted(before)
        try:
            token = self._pick(logits)
        finally:
            logits[self._ids] = before
        if self._adjust is not None:
            self._adjust.accept(token)
            self._touch(token)
        return token

    def _adjusted(self, before: Logits) -> Logits:
        after = before + self._bias
        if self._adjust is None:
            return after
        self._candidates.put(self._ids, after)
        self._adjust.apply(self._candidates)
        return self._candidates.logits

    def _touch(self, token: int) -> None:
        if token not in self._touched:
            self._touched.add(token)
            self._ids = np.append(self._ids, np.int32(token))
            self._bias = np.append(self._bias, np.float32(0))

    def close(self) -> None:
        """Free the native stages."""
        for stages in (self._adjust, self._draw):
            if stages is not None:
                stages.close()

    def _pick(self, logits: Logits) -> int:
        if self._draw is None:
            token = int(logits.argmax())
            if logits[token] < _MIN_LOGIT:
                raise NothingToChoose("the constraint allows no further token")
            return token
        bound = self._bound.of(logits)
        if bound == _MIN_LOGIT and logits.min() >= _MIN_LOGIT:
            self._candidates.put_all(logits)
        else:
            ids = reaching(logits, bound)
            if not ids.size:
                raise NothingToChoose("the constraint allows no further token")
            self._candidates.put(ids, logits[ids])
        self._draw.apply(self._candidates)
        return self._candidates.chosen


__all__ = ["Bound", "NothingToChoose", "TokenSampler", "reaching"]
