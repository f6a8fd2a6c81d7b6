"""Perplexity, divergence and agreement of a text, with standard errors by bootstrap over its chunks."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mixcli.insight.pieces import Kind

N_RESAMPLES = 500
ALL = "all"


@dataclass(frozen=True)
class Estimate:
    """A value and its standard error, None where there is only one chunk."""

    value: float
    error: float | None


@dataclass(frozen=True)
class ChunkScores:
    """What was measured in one chunk of the text `name`, a number for each counted token.

    `nll` is -ln p of the token; with a baseline also that of the baseline, the KL divergence in nats, and whether the likeliest token is the
    same.
    """

    name: str
    kind: Kind
    nll: NDArray[np.float64]
    nll_baseline: NDArray[np.float64] | None = None
    divergence: NDArray[np.float64] | None = None
    agrees: NDArray[np.bool_] | None = None


@dataclass(frozen=True)
class TextScores:
    """The scores of one text, or of all texts of a kind: counted tokens, chunks, perplexity; against a baseline the rest."""

    name: str
    n_tokens: int
    n_chunks: int
    perplexity: Estimate
    baseline_perplexity: Estimate | None = None
    kl_mean: Estimate | None = None
    kl_median: Estimate | None = None
    kl_p99: Estimate | None = None
    agreement: Estimate | None = None

    def to_data(self) -> dict[str, object]:
        return asdict(self)

    @classmethod
    def from_data(cls, data: Any) -> "TextScores":
        """Read what `to_data` returned."""
        read: dict[str, Any] = {
            name: Estimate(**value) if isinstance(value, dict) else value for name, value in data.items()
        }
        return cls(**read)


def rows_of(chunks: Sequence[ChunkScores]) -> list[TextScores]:
    """Return the scores of all chunks together, then of each kind that has several texts, then of each text."""
    names = list(dict.fromkeys(chunk.name for chunk in chunks))
    kinds = list(dict.fromkeys(chunk.kind for chunk in chunks))
    rows = [_scores(ALL, chunks)] if len(names) > 1 else []
    for kind in kinds if len(kinds) > 1 else ():
        mine = [chunk for chunk in chunks if chunk.kind == kind]
        if len({chunk.name for chunk in mine}) > 1:
            rows.append(_scores(kind, mine))
    return rows + [_scores(name, [chunk for chunk in chunks if chunk.name == name]) for name in names]


def _scores(name: str, chunks: Sequence[ChunkScores]) -> TextScores:
    weights = _resamples(len(chunks))
    nll = [chunk.nll for chunk in chunks]
    base = [chunk.nll_baseline for chunk in chunks if chunk.nll_baseline is not None]
    divergence = [chunk.divergence for chunk in chunks if chunk.divergence is not None]
    agrees = [chunk.agrees.astype(np.float64) for chunk in chunks if chunk.agrees is not None]
    return TextScores(
        name,
        sum(map(len, nll)),
        len(chunks),
        _mean(nll, weights, exponential=True),
        _mean(base, weights, exponential=True) if base else None,
        _mean(divergence, weights) if divergence else None,
        quantile(divergence, 0.5, weights) if divergence else None,
        quantile(divergence, 0.99, weights) if divergence else None,
        _mean(agrees, weights) if agrees else None,
    )


def _resamples(n: int) -> NDArray[np.int64]:
    """Return how often each of n chunks is drawn in each resample, (N_RESAMPLES, n); the same numbers every time."""
    return np.random.default_rng(0).multinomial(n, np.full(n, 1 / n), N_RESAMPLES)


def _mean(
    chunks: Sequence[NDArray[np.float64]], weights: NDArray[np.int64], *, exponential: bool = False
) -> Estimate:
    sums, counts = np.array([chunk.sum() for chunk in chunks]), np.array([len(chunk) for chunk in chunks])
    value, drawn = sums.sum() / counts.sum(), (weights @ sums) / (weights @ counts)
    if exponential:
        value, drawn = np.exp(value), np.exp(drawn)
    return Estimate(float(value), _spread(drawn, len(chunks)))


def quantile(
    chunks: Sequence[NDArray[np.float64]], share: float, weights: NDArray[np.int64] | None = None
) -> Estimate:
    """Return a quantile of all values, interpolated linearly as numpy does, and its standard error."""
    values = np.concatenate(chunks)
    value = float(np.quantile(values, share))
    order = np.argsort(values)
    chunk_of = np.repeat(np.arange(len(chunks)), [len(chunk) for chunk in chunks])[order]
    drawn = [
        values[order[np.searchsorted(total, share * total[-1])]]
        for one in (_resamples(len(chunks)) if weights is None else weights)
        for total in (np.cumsum(one[chunk_of]),)
    ]
    return Estimate(value, _spread(np.array(drawn), len(chunks)))


def _spread(drawn: NDArray[np.float64], n_chunks: int) -> float | None:
    return float(drawn.std(ddof=1)) if n_chunks > 1 else None
