"""What routers did with texts: shares, entropy, experts that are chosen together, drift between two texts, favorite tokens, batches, pruning."""

from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from itertools import combinations
from math import comb
from typing import Any

import numpy as np
from numpy.typing import NDArray

Whole = NDArray[np.int64]
Chosen = NDArray[np.int16]  # experts of each token, (tokens, experts used) or (chunks, tokens, experts used)
Floats = NDArray[np.float64]

BATCHES = (1, 2, 4, 8, 16, 32)
KEPT = (7 / 8, 3 / 4, 1 / 2)  # of the experts of a layer
N_PARTNERS, N_FAVORITES = 3, 8  # of an expert
N_SHUFFLES = 200
MIN_SPLITS = 100  # ways to deal the chunks to both texts, below which chance cannot be told from drift


@dataclass(frozen=True)
class Partner:
    """An expert of the same layer, for how many tokens both were chosen, and how often that is against chance (1)."""

    expert: int
    n_tokens: int
    lift: float


@dataclass(frozen=True)
class FavoriteToken:
    """A token that an expert gets more often than chance: its text, how often it came here, and how often it is in the text."""

    text: str
    n_here: int
    n_seen: int


@dataclass(frozen=True)
class ExpertShare:
    """One expert of a layer: the tokens that chose it, and their share of all choices (in the other text `share_against`)."""

    expert: int
    n_tokens: int
    share: float
    partners: tuple[Partner, ...]
    favorites: tuple[FavoriteToken, ...]
    share_against: float | None = None


@dataclass(frozen=True)
class Drift:
    """The Jensen-Shannon divergence of two texts' shares, in bits from 0 to 1, and what chance exceeds in 5 % of shuffles of their chunks."""

    divergence: float
    by_chance: float | None


@dataclass(frozen=True)
class LayerUse:
    """One layer with experts: the entropy of their shares in bits (log2 of their number where all are used alike)."""

    layer: int
    entropy: float
    experts: tuple[ExpertShare, ...]
    drift: Drift | None = None


@dataclass(frozen=True)
class BatchUse:
    """Distinct experts of a layer that a batch uses, in the mean over layers: with uniform routing, of tokens of separate requests, and of
    consecutive tokens of one text."""

    n_tokens: int
    uniform: float
    separate: float
    consecutive: float


@dataclass(frozen=True)
class Pruning:
    """What would remain if each layer kept its `n_kept` most used experts: the share of choices, and of tokens that keep all of theirs.

    Both are means over layers; `worst_choices` is the share of choices in the layer that loses most.
    """

    n_kept: int
    choices: float
    worst_choices: float
    tokens: float


@dataclass(frozen=True)
class ExpertReport:
    """What was found in a text, and in `n_tokens_against` tokens of another one."""

    n_expert: int
    n_expert_used: int
    n_tokens: int
    n_tokens_against: int
    layers: tuple[LayerUse, ...]
    batches: tuple[BatchUse, ...]
    pruning: tuple[Pruning, ...]

    def to_data(self) -> dict[str, object]:
        """Return the JSON object; `from_data` reads it."""
        return asdict(self)

    @classmethod
    def from_data(cls, data: Any) -> "ExpertReport":
        """Read what `to_data` returned."""
        return cls(
            **{
                **data,
                "layers": tuple(_layer(one) for one in data["layers"]),
                "batches": tuple(BatchUse(**one) for one in data["batches"]),
                "pruning": tuple(Pruning(**one) for one in data["pruning"]),
            }
        )


def _layer(data: Any) -> LayerUse:
    experts = tuple(
        ExpertShare(
            **{
                **one,
                "partners": tuple(Partner(**partner) for partner in one["partners"]),
                "favorites": tuple(FavoriteToken(**token) for token in one["favorites"]),
            }
        )
        for one in data["experts"]
    )
    drift = data["drift"] and Drift(**data["drift"])
    return LayerUse(**{**data, "experts": experts, "drift": drift})


@dataclass(frozen=True)
class RoutedText:
    """The token ids of a text's chunks, (chunks, tokens of a chunk), and by layer the experts that each was given to, (chunks, tokens, used)."""

    tokens: Whole
    choices: Mapping[int, Chosen]

    def rows(self, layer: int) -> Chosen:
        """Return a layer's choices, (tokens, used)."""
        chosen = self.choices[layer]
        return chosen.reshape(-1, chosen.shape[-1])

    def counts(self, layer: int, n_expert: int) -> Whole:
        """Return how many tokens of each chunk chose each expert, (chunks, experts)."""
        chosen = self.choices[layer].reshape(len(self.tokens), -1)
        flat = (np.arange(len(chosen))[:, None] * n_expert + chosen).ravel()
        return np.bincount(flat, minlength=len(chosen) * n_expert).reshape(-1, n_expert)


def summed_up(
    text: RoutedText, against: RoutedText | None, n_expert: int, n_used: int, piece: Callable[[int], str]
) -> ExpertReport:
    """Return what routers did with a text, and how another one differs; `piece` returns a token as text."""
    layers = sorted(text.choices)
    counts = {layer: text.counts(layer, n_expert) for layer in layers}
    shares = np.array([_shares(counts[layer]) for layer in layers])
    favorites = _Favorites(text.tokens, piece)
    drifts, others = _drifts(text, against, n_expert) if against else ({}, {})
    found = []
    for layer, of_layer in zip(layers, shares, strict=True):
        rows = text.rows(layer)
        partners, liked = partners_of(rows, n_expert), favorites.of(rows, n_expert)
        totals = counts[layer].sum(axis=0)
        experts = tuple(
            ExpertShare(
                i,
                int(totals[i]),
                float(of_layer[i]),
                partners[i],
                liked[i],
                float(others[layer][i]) if layer in others else None,
            )
            for i in range(n_expert)
        )
        found.append(LayerUse(layer, entropy(of_layer), experts, drifts.get(layer)))
    return ExpertReport(
        n_expert,
        n_used,
        text.tokens.size,
        0 if against is None else against.tokens.size,
        tuple(found),
        tuple(_batch(text, shares * n_used, n) for n in BATCHES if n <= text.tokens.shape[1]),
        tuple(_pruned(text, shares, round(share * n_expert)) for share in KEPT if share * n_expert >= n_used),
    )


def entropy(shares: Floats) -> float:
    """Return the entropy of shares in bits."""
    used = shares[shares > 0]
    return float(-(used * np.log2(used)).sum())


def jensen_shannon(p: Floats, q: Floats) -> Floats:
    """Return the Jensen-Shannon divergence in bits of distributions over the last axis."""
    middle = (p + q) / 2

    def part(one: Floats) -> Floats:
        ratio = np.where(one > 0, one / np.where(middle > 0, middle, 1), 1)
        return np.asarray((one * np.log2(ratio)).sum(axis=-1))

    return np.maximum(0, (part(p) + part(q)) / 2)


def partners_of(rows: Chosen, n_expert: int) -> list[tuple[Partner, ...]]:
    """Return for each expert those that the same tokens chose most above chance.

    Chance has the experts' own frequencies, scaled so that uniform choices of different experts have a lift of 1.
    """
    pairs = np.zeros((n_expert, n_expert), np.int64)
    for a, b in combinations(range(rows.shape[1]), 2):
        np.add.at(pairs, (rows[:, a], rows[:, b]), 1)
    pairs = pairs + pairs.T
    used, n_used = np.bincount(rows.ravel(), minlength=n_expert).astype(np.float64), rows.shape[1]
    correction = (n_used - 1) * n_expert / (n_used * (n_expert - 1)) if n_expert > 1 else 1.0
    expected = used[:, None] * used[None, :] / len(rows) * correction
    surplus = np.where(pairs > 0, _surplus(pairs, len(rows), expected / len(rows)), -np.inf)
    return [
        tuple(
            Partner(int(b), int(pairs[a, b]), float(pairs[a, b] / expected[a, b]))
            for b in np.argsort(-surplus[a], kind="stable")[:N_PARTNERS]
            if pairs[a, b]
        )
        for a in range(n_expert)
    ]


def _surplus(n: Whole, of: Whole | int, share: Floats) -> Floats:
    """Return how sure it is that n of `of` is more than a share by chance: Dunning's log-likelihood ratio, negative for less.

    "Accurate Methods for the Statistics of Surprise and Coincidence", Computational Linguistics 19 (1993).
    """
    found, whole, p = n.astype(np.float64), np.asarray(of, np.float64), np.clip(share, 1e-12, 1 - 1e-12)
    missed = whole - found

    def term(observed: Floats, expected: Floats) -> Floats:
        return np.where(observed > 0, observed * np.log(np.where(observed > 0, observed, 1) / expected), 0)

    ratio = term(found, whole * p) + term(missed, whole * (1 - p))
    return np.where(found > whole * p, ratio, -ratio)


class _Favorites:
    """Finds the tokens that each expert gets more often than its share."""

    def __init__(self, tokens: Whole, piece: Callable[[int], str]) -> None:
        self._ids, self._numbers, self._n_seen = np.unique(
            tokens.ravel(), return_inverse=True, return_counts=True
        )
        self._piece = piece

    def of(self, rows: Chosen, n_expert: int) -> list[tuple[FavoriteToken, ...]]:
        n_ids = len(self._ids)
        flat = (self._numbers.reshape(-1, 1) * n_expert + rows).ravel()
        here = np.bincount(flat, minlength=n_ids * n_expert).reshape(n_ids, n_expert)
        surplus = _surplus(here, self._n_seen[:, None], here.sum(axis=0) / len(rows))
        best = np.argsort(-surplus, axis=0, kind="stable")[:N_FAVORITES]
        return [
            tuple(
                FavoriteToken(self._piece(int(self._ids[i])), int(here[i, expert]), int(self._n_seen[i]))
                for i in best[:, expert]
                if surplus[i, expert] > 0
            )
            for expert in range(n_expert)
        ]


def _shares(counts: Whole) -> Floats:
    totals = counts.sum(axis=0)
    return np.asarray(totals / max(1, totals.sum()))


def _drifts(
    text: RoutedText, against: RoutedText, n_expert: int
) -> tuple[dict[int, Drift], dict[int, Floats]]:
    """Return the drift of each layer, and the other text's shares."""
    layers = sorted(text.choices)
    one, other = (np.array([each.counts(layer, n_expert) for layer in layers]) for each in (text, against))
    shares = [np.array([_shares(layer) for layer in each]) for each in (one, other)]
    found = jensen_shannon(shares[0], shares[1])
    chunks = np.concatenate([one, other], axis=1)  # (layers, chunks, experts)
    is_enough = comb(chunks.shape[1], one.shape[1]) >= MIN_SPLITS
    chance = _by_chance(chunks, one.shape[1]) if is_enough else None
    drifts = {
        layer: Drift(float(found[i]), None if chance is None else float(chance[i]))
        for i, layer in enumerate(layers)
    }
    return drifts, dict(zip(layers, shares[1], strict=True))


def _by_chance(chunks: Whole, n_first: int) -> Floats:
    """Return the 95 % quantile of each layer's divergence when the chunks of both texts are shuffled, (layers,)."""
    random = np.random.default_rng(0)
    drawn = []
    for _ in range(N_SHUFFLES):
        order = random.permutation(chunks.shape[1])
        first, second = chunks[:, order[:n_first]].sum(axis=1), chunks[:, order[n_first:]].sum(axis=1)
        drawn.append(
            jensen_shannon(
                first / first.sum(axis=1, keepdims=True), second / second.sum(axis=1, keepdims=True)
            )
        )
    return np.asarray(np.quantile(drawn, 0.95, axis=0))


def _batch(text: RoutedText, frequencies: Floats, n: int) -> BatchUse:
    """Return the distinct experts of `n` tokens; `frequencies` (layers, experts) are the shares of tokens that use an expert.

    Separate requests are tokens drawn from the whole text: an expert is missed by all with (1 - frequency)^n.
    """
    n_expert = frequencies.shape[1]
    n_used = frequencies[0].sum()
    uniform = n_expert * (1 - (1 - n_used / n_expert) ** n)
    separate = (1 - (1 - np.minimum(frequencies, 1)) ** n).sum(axis=1).mean()
    consecutive = np.mean([_distinct(chosen, n, n_expert) for chosen in text.choices.values()])
    return BatchUse(n, float(uniform), float(separate), float(consecutive))


def _distinct(chosen: Chosen, n: int, n_expert: int) -> float:
    """Return how many experts every `n` consecutive tokens of a chunk use, in the mean."""
    whole = chosen[:, : chosen.shape[1] // n * n]
    windows = whole.reshape(-1, n * chosen.shape[2])
    used = np.zeros((len(windows), n_expert), bool)
    used[np.arange(len(windows))[:, None], windows] = True
    return float(used.sum(axis=1).mean())


def _pruned(text: RoutedText, shares: Floats, n_kept: int) -> Pruning:
    order = np.argsort(-shares, axis=1, kind="stable")
    left = np.take_along_axis(shares, order[:, :n_kept], axis=1).sum(axis=1)
    whole = []
    for layer, kept in zip(sorted(text.choices), order, strict=True):
        is_kept = np.zeros(shares.shape[1], bool)
        is_kept[kept[:n_kept]] = True
        whole.append(is_kept[text.rows(layer)].all(axis=1).mean())
    return Pruning(n_kept, float(left.mean()), float(left.min()), float(np.mean(whole)))
