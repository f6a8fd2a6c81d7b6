"""The chooser against llama.cpp's whole chain over all candidates, and each stage's effect on rows made by hand."""

import math
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from mixcli.engine.sampling import SamplingParams
from mixcli.engine.token_sampler import Bound, NothingToChoose
from mixcli.llama.candidates import Candidates
from mixcli.llama.model import Model, Vocab

Row = NDArray[np.float32]
OPEN: dict[str, Any] = {"top_k": 0, "top_p": 1.0, "min_p": 0.0}
N_CTX = 512
PROMPT = (*np.random.default_rng(5).integers(0, 3000, 200).tolist(), 7, 8, 9, 7, 8)


@pytest.fixture(scope="module")
def vocab(smol: Model) -> Vocab:
    return smol.vocab


def peaked(seed: int, n: int, *, ties: bool = False, forbidden: float = 0.0) -> Row:
    """A row like a model's: a bell of tokens, a few far above it; `ties` rounds it, `forbidden` sets a share to -inf."""
    random = np.random.default_rng(seed)
    row = random.normal(0, 2, n).astype(np.float32)
    row[random.integers(0, n, 60)] += random.exponential(6, 60).astype(np.float32)
    if ties:
        row = np.round(row).astype(np.float32)
    row[random.random(n) < forbidden] = -np.inf
    return row


class Whole:
    """The same stages over every candidate that is allowed, as llama_sampler_sample runs them."""

    def __init__(self, params: SamplingParams, vocab: Vocab, prompt: tuple[int, ...]) -> None:
        self._bias = np.zeros(vocab.n_tokens, np.float32)
        for token, bias in params.logit_bias.items():
            self._bias[token] = bias
        self._adjust = params._adjusting(vocab, N_CTX, prompt)
        self._draw = params._drawing(vocab)
        self._candidates = Candidates(vocab.n_tokens)

    def choose(self, logits: Row) -> tuple[int, float]:
        """Give the token and its adjusted logit."""
        ids = np.flatnonzero(logits > -np.inf)
        self._candidates.put(ids, (logits + self._bias)[ids])
        if self._adjust is not None:
            self._adjust.apply(self._candidates)
        adjusted = dict(zip(self._candidates.ids.tolist(), self._candidates.logits.tolist(), strict=True))
        self._draw.apply(self._candidates)
        token = self._candidates.chosen
        if self._adjust is not None:
            self._adjust.accept(token)
        return token, adjusted[token]


CHAINS: dict[str, dict[str, Any]] = {
    "defaults": {},
    "top_k 1": OPEN | {"top_k": 1},
    "top_k alone": OPEN | {"top_k": 7},
    "top_k beyond the blocks": OPEN | {"top_k": 700},
    "top_k above the vocabulary": OPEN | {"top_k": 1 << 20},
    "min_p alone": OPEN | {"min_p": 0.02},
    "min_p 1": OPEN | {"min_p": 1.0},
    "top_p alone": OPEN | {"top_p": 0.7},
    "typical": OPEN | {"typical_p": 0.6},
    "typical behind top_k": {"typical_p": 0.6},
    "xtc": {"xtc_probability": 0.5, "xtc_threshold": 0.05},
    "nothing": OPEN,
    "hot": {"temperature": 5.0},
    "dynamic temperature": {"temperature": 1.0, "dynatemp_range": 0.8, "dynatemp_exponent": 1.5},
    "bias": {"logit_bias": {5: 9.5, 11: -100.0, 49151: 12.0}},
    "repeat": {"repeat_penalty": 1.3},
    "repeat everything": {"repeat_penalty": 1.3, "repeat_last_n": -1},
    "openai": {"frequency_penalty": 1.1, "presence_penalty": 0.7},
    "dry": {"dry_multiplier": 5.0, "dry_allowed_length": 1},
    "all penalties, min_p": OPEN
    | {"min_p": 0.1, "repeat_penalty": 1.2, "frequency_penalty": 0.5, "dry_multiplier": 2.0},
    "mirostat": {"mirostat": 1, "mirostat_tau": 3.0},
    "mirostat 2": {"mirostat": 2, "mirostat_tau": 3.0, "frequency_penalty": 1.0},
}


@pytest.mark.parametrize("name", CHAINS)
def test_the_same_token_as_the_whole_chain(vocab: Vocab, name: str) -> None:
    params = SamplingParams(seed=11, **CHAINS[name])
    chooser, whole = params.chooser(vocab, N_CTX, PROMPT), Whole(params, vocab, PROMPT)
    for step in range(30):
        row = peaked(step % 7, vocab.n_tokens, forbidden=0.5 if step % 3 == 0 else 0.0)
        before = row.copy()
        assert chooser.choose(row) == whole.choose(row)[0], step
        assert np.array_equal(row, before)
    chooser.close()


@pytest.mark.parametrize(
    "name", ["defaults", "top_k alone", "top_k beyond the blocks", "min_p alone", "bias", "repeat"]
)
def test_with_ties_the_same_logit_as_the_whole_chain(vocab: Vocab, name: str) -> None:
    """One choice a chain, because after a tie the two may have different tokens to remember."""
    for seed in range(25):
        params = SamplingParams(seed=seed, **CHAINS[name])
        row = peaked(seed, vocab.n_tokens, ties=True)
        token = params.chooser(vocab, N_CTX, PROMPT).choose(row)
        _, logit = Whole(params, vocab, PROMPT).choose(row)
        chooser = SamplingParams(**CHAINS[name]).chooser(vocab, N_CTX, PROMPT)
        ours = row.copy()
        ours[chooser._ids] = chooser._adjusted(row[chooser._ids])
        assert float(ours[token]) == logit


@pytest.mark.parametrize("n", [3, 64, 100, 4099, 49152])
def test_rows_of_any_length(n: int) -> None:
    for seed, k in ((0, 1), (1, 3), (2, 40), (3, n), (4, 2 * n)):
        row = peaked(seed, n, ties=seed % 2 == 0)
        bound = Bound(top_k=k).of(row)
        kth = np.sort(row)[-min(k, n)]
        assert bound <= kth
        if n == 49152 and k <= 40:
            assert np.count_nonzero(row >= bound) <= 4 * k + np.count_nonzero(row == bound)


def test_temperature_zero_takes_the_first_of_the_likeliest(vocab: Vocab) -> None:
    row = peaked(1, vocab.n_tokens)
    row[[300, 41, 7000]] = 50
    assert SamplingParams(temperature=0).chooser(vocab, N_CTX, ()).choose(row) == 41
    biased = SamplingParams(temperature=0, logit_bias={7000: 0.5}).chooser(vocab, N_CTX, ())
    assert [biased.choose(row), biased.choose(row)] == [7000, 7000]
    assert row[7000] == 50


@pytest.mark.parametrize(
    "params", [{}, {"temperature": 0}, OPEN, {"mirostat": 2}, {"logit_bias": {3: 100.0}}]
)
def test_what_is_forbidden_is_never_chosen(vocab: Vocab, params: dict[str, Any]) -> None:
    row = np.full(vocab.n_tokens, -np.inf, np.float32)
    with pytest.raises(NothingToChoose):
        SamplingParams(**params).chooser(vocab, N_CTX, ()).choose(row)
    row[[17, 23]] = -40.0, -41.0
    chooser = SamplingParams(seed=1, **params).chooser(vocab, N_CTX, ())
    assert {chooser.choose(row) for _ in range(20)} <= {17, 23}


def chances(vocab: Vocab, params: SamplingParams, row: Row) -> dict[int, float]:
    """What the stages before the draw leave, as token to probability, without the last stage's draw."""
    chain = params._drawing(vocab)
    candidates = Candidates(len(row))
    candidates.put(np.arange(len(row)), row)
    chain.apply(candidates)
    weights = np.exp(candidates.logits.astype(np.float64) - candidates.logits.max())
    return dict(zip(candidates.ids.tolist(), (weights / weights.sum()).tolist(), strict=True))


FOUR = np.log(np.array([0.5, 0.25, 0.15, 0.1], np.float32)).astype(np.float32)


def test_typical_p_prefers_what_is_as_surprising_as_expected(vocab: Vocab) -> None:
    p = np.exp(FOUR.astype(np.float64))
    off = np.abs(-np.log(p) - (-(p * np.log(p)).sum()))
    order = np.argsort(off)
    kept = order[: int(np.searchsorted(np.cumsum(p[order]), 0.2)) + 1]
    left = chances(vocab, SamplingParams(temperature=1, **OPEN | {"typical_p": 0.2}), FOUR)
    assert set(left) == set(kept.tolist()) == {1}  # the likeliest token is less surprising than expected


def test_xtc_leaves_out_all_likely_tokens_but_the_last(vocab: Vocab) -> None:
    params = SamplingParams(temperature=1, xtc_probability=1.0, xtc_threshold=0.12, **OPEN)
    assert set(chances(vocab, params, FOUR)) == {2, 3}
    half = [
        len(chances(vocab, SamplingParams(seed=seed, xtc_probability=0.5, xtc_threshold=0.12, **OPEN), FOUR))
        for seed in range(200)
    ]
    assert 60 < half.count(2) < 140
    assert half.count(4) == 200 - half.count(2)


def test_top_n_sigma_keeps_what_is_near_the_best(vocab: Vocab) -> None:
    row = peaked(3, vocab.n_tokens)
    row[::2] = -np.inf
    allowed = row[row > -np.inf].astype(np.float64)
    kept = np.flatnonzero(row >= allowed.max() - 5 * allowed.std())
    assert 1 < kept.size < 60
    chooser = SamplingParams(seed=1, temperature=10, top_n_sigma=5, **OPEN).chooser(vocab, N_CTX, ())
    assert {chooser.choose(row) for _ in range(300)} <= set(kept.tolist())
    both = SamplingParams(seed=1, temperature=10, top_n_sigma=5, **OPEN | {"top_k": 2}).chooser(
        vocab, N_CTX, ()
    )
    assert {both.choose(row) for _ in range(100)} == set(np.argsort(row)[-2:].tolist())


def test_dynamic_temperature_follows_the_entropy(vocab: Vocab) -> None:
    p = np.exp(FOUR.astype(np.float64))
    share = -(p * np.log(p)).sum() / math.log(4)
    t = 0.5 + (1.5 - 0.5) * share**2
    left = chances(
        vocab, SamplingParams(temperature=1, dynatemp_range=0.5, dynatemp_exponent=2, **OPEN), FOUR
    )
    expected = np.exp(FOUR / t) / np.exp(FOUR / t).sum()
    assert [left[i] for i in range(4)] == pytest.approx(expected.tolist(), rel=1e-4)


def test_dry_penalizes_what_would_go_on_with_a_repetition(vocab: Vocab) -> None:
    """... 7 8 9 ... 7 8: a 9 would repeat three tokens; the penalty is multiplier * base ^ (2 - allowed length)."""
    row = np.zeros(vocab.n_tokens, np.float32)
    row[9], row[100] = 10.0, 9.0
    params: dict[str, Any] = {"temperature": 0, "dry_base": 2.0, "dry_allowed_length": 1}
    strong = SamplingParams(dry_multiplier=0.6, **params).chooser(vocab, N_CTX, PROMPT)  # 10 - 1.2 < 9
    weak = SamplingParams(dry_multiplier=0.4, **params).chooser(vocab, N_CTX, PROMPT)  # 10 - 0.8 > 9
    assert [strong.choose(row), weak.choose(row)] == [100, 9]
    window = SamplingParams(dry_multiplier=9.0, dry_penalty_last_n=2, **params).chooser(vocab, N_CTX, PROMPT)
    assert window.choose(row) == 9  # the earlier 7 8 is out of sight


def test_a_breaker_ends_a_repetition(vocab: Vocab) -> None:
    a, colon, b, c = (vocab.tokenize(text)[0] for text in (" river", ":", " stone", " bird"))
    row = np.zeros(vocab.n_tokens, np.float32)
    row[c], row[a] = 10.0, 9.0
    prompt = (b, colon, c, a, b, colon)
    params: dict[str, Any] = {"temperature": 0, "dry_multiplier": 9.0, "dry_allowed_length": 1}
    assert SamplingParams(**params).chooser(vocab, N_CTX, prompt).choose(row) == c
    assert SamplingParams(dry_sequence_breakers=(), **params).chooser(vocab, N_CTX, prompt).choose(row) == a


@pytest.mark.parametrize("version", [1, 2])
def test_mirostat_holds_the_surprise(vocab: Vocab, version: int) -> None:
    row = peaked(2, vocab.n_tokens)
    logp = row.astype(np.float64) - row.max()
    logp -= math.log(np.exp(logp).sum())

    def surprise(tau: float) -> float:
        params = SamplingParams(seed=4, temperature=1, mirostat=version, mirostat_tau=tau, mirostat_eta=0.1)
        chooser = params.chooser(vocab, N_CTX, ())
        drawn = [chooser.choose(row) for _ in range(150)]
        return float(-logp[drawn[50:]].mean() / math.log(2))

    assert surprise(0.5) < surprise(2.0) < surprise(6.0)


def test_mirostat_with_few_tokens_allowed_draws_among_them(vocab: Vocab) -> None:
    """llama.cpp's estimate divides zero by zero over tokens at -inf, and is greedy then; they are left out here."""
    row = np.full(vocab.n_tokens, -np.inf, np.float32)
    row[[3, 4, 5]] = 1.0, 0.9, 0.8
    chooser = SamplingParams(seed=1, temperature=1, mirostat=1).chooser(vocab, N_CTX, ())
    assert {chooser.choose(row) for _ in range(100)} == {3, 4, 5}


def test_closing_twice_is_fine(vocab: Vocab) -> None:
    chooser = SamplingParams(frequency_penalty=1.0).chooser(vocab, N_CTX, ())
    chooser.close()
    chooser.close()
