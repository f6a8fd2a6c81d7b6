"""What is made of routers' choices, against the same by loops over every token."""

import json

import numpy as np
import pytest

from mixcli.insight.expert_use import ExpertReport, RoutedText, entropy, jensen_shannon, summed_up

N_EXPERT, N_USED, N_CHUNKS, N_CTX = 6, 2, 5, 64


def routed(seed: int, favorite: int | None = None, busy: int = 0) -> RoutedText:
    """Draw choices, of which expert `busy` gets more; token `favorite` always goes to expert 5, together with expert 4."""
    random = np.random.default_rng(seed)
    tokens = random.integers(0, 12, (N_CHUNKS, N_CTX))
    choices = {}
    for layer in (1, 2):
        weights = random.random((N_CHUNKS, N_CTX, N_EXPERT)) + 0.5 * (np.arange(N_EXPERT) == busy)
        chosen = np.argsort(-weights, axis=-1)[..., :N_USED].astype(np.int16)
        if favorite is not None:
            chosen[tokens == favorite] = (5, 4)
        choices[layer] = chosen
    return RoutedText(tokens, choices)


@pytest.fixture(scope="module")
def report() -> ExpertReport:
    return summed_up(routed(1, favorite=3), routed(2, busy=1), N_EXPERT, N_USED, str)


def test_shares_entropy_and_partners_are_those_of_a_count_by_hand(report: ExpertReport) -> None:
    text = routed(1, favorite=3)
    assert [one.layer for one in report.layers] == [1, 2]
    for layer in report.layers:
        tokens = [set(row) for row in text.rows(layer.layer).tolist()]
        assert sum(one.n_tokens for one in layer.experts) == len(tokens) * N_USED == report.n_tokens * N_USED
        for one in layer.experts:
            n = sum(one.expert in used for used in tokens)
            assert (one.n_tokens, one.share) == (n, pytest.approx(n / (len(tokens) * N_USED)))
            for partner in one.partners:
                both = sum({one.expert, partner.expert} <= used for used in tokens)
                other = sum(partner.expert in used for used in tokens)
                chance = n * other / len(tokens) * (N_USED - 1) * N_EXPERT / (N_USED * (N_EXPERT - 1))
                assert (partner.n_tokens, partner.lift) == (both, pytest.approx(both / chance))
        shares = np.array([one.share for one in layer.experts])
        assert layer.entropy == pytest.approx(-sum(p * np.log2(p) for p in shares))
        assert layer.experts[5].partners[0].expert == 4
        assert layer.experts[5].partners[0].lift > 1.5


def test_a_token_that_one_expert_always_gets_is_its_favorite(report: ExpertReport) -> None:
    n = int((routed(1).tokens == 3).sum())
    for layer in report.layers:
        for expert in (4, 5):
            favorite = layer.experts[expert].favorites[0]
            assert (favorite.text, favorite.n_here, favorite.n_seen) == ("3", n, n)


def test_drift_is_beyond_chance_only_where_texts_differ(report: ExpertReport) -> None:
    for layer in report.layers:
        assert layer.drift
        assert layer.drift.by_chance
        assert layer.drift.divergence > layer.drift.by_chance
        p, q = (
            np.array([getattr(one, name) for one in layer.experts]) for name in ("share", "share_against")
        )
        middle = (p + q) / 2
        by_hand = (sum(p * np.log2(p / middle)) + sum(q * np.log2(q / middle))) / 2
        assert layer.drift.divergence == pytest.approx(by_hand)
    alike = [layer.drift for layer in summed_up(routed(3), routed(4), N_EXPERT, N_USED, str).layers]
    assert all(one and one.by_chance and one.divergence < 3 * one.by_chance for one in alike)


def test_divergence_and_entropy_have_their_limits() -> None:
    apart = jensen_shannon(np.array([1.0, 0.0]), np.array([0.0, 1.0]))
    assert apart == pytest.approx(1)
    assert jensen_shannon(np.array([0.3, 0.7]), np.array([0.3, 0.7])) == 0
    assert entropy(np.array([0.25] * 4)) == pytest.approx(2)
    assert entropy(np.array([1.0, 0.0])) == 0


def test_batches_use_as_many_experts_as_a_count_finds(report: ExpertReport) -> None:
    text = routed(1, favorite=3)
    for batch in report.batches:
        n = batch.n_tokens
        assert batch.uniform == pytest.approx(N_EXPERT * (1 - (1 - N_USED / N_EXPERT) ** n))
        windows = [
            len(set(chosen[chunk, start : start + n].ravel().tolist()))
            for chosen in text.choices.values()
            for chunk in range(N_CHUNKS)
            for start in range(0, N_CTX - n + 1, n)
        ]
        assert batch.consecutive == pytest.approx(np.mean(windows))
    random = np.random.default_rng(0)
    rows = [text.rows(layer) for layer in text.choices]
    drawn = [
        len(set(one[random.integers(0, len(one), 4)].ravel().tolist())) for one in rows for _ in range(2000)
    ]
    four = next(one for one in report.batches if one.n_tokens == 4)
    assert four.separate == pytest.approx(np.mean(drawn), rel=0.02)
    assert report.batches[0].separate == pytest.approx(N_USED)


def test_pruning_keeps_the_most_used_experts(report: ExpertReport) -> None:
    text = routed(1, favorite=3)
    half = next(one for one in report.pruning if one.n_kept == 3)
    choices, tokens = [], []
    for layer in report.layers:
        kept = {one.expert for one in sorted(layer.experts, key=lambda one: -one.share)[:3]}
        rows = text.rows(layer.layer).tolist()
        choices.append(np.mean([expert in kept for row in rows for expert in row]))
        tokens.append(np.mean([set(row) <= kept for row in rows]))
    assert half.choices == pytest.approx(np.mean(choices))
    assert half.worst_choices == pytest.approx(min(choices))
    assert half.tokens == pytest.approx(np.mean(tokens))


def test_a_report_survives_the_way_to_the_parent(report: ExpertReport) -> None:
    assert ExpertReport.from_data(json.loads(json.dumps(report.to_data()))) == report


def test_one_expert_a_token_has_no_partners() -> None:
    text = RoutedText(np.zeros((1, 4), np.int64), {0: np.array([[[0], [1], [1], [1]]], np.int16)})
    found = summed_up(text, None, 2, 1, str)
    assert all(one.partners == () for one in found.layers[0].experts)
    assert found.layers[0].drift is None
