"""Intervals that hold at every look, and McNemar's test."""

import numpy as np
import pytest

from mixcli.insight.sequential import LEVEL, Interval, clopper_pearson, decide, interval_at, looks, mcnemar

N_RUNS = 400


def test_one_looks_after_twice_as_many_records_each_time() -> None:
    assert looks(1000) == [64, 128, 256, 512, 1000]
    assert looks(64) == [64]
    assert looks(3) == [3]


@pytest.mark.parametrize(
    ("n_hits", "n", "low", "high"),
    [(0, 10, 0, 0.3085), (1, 10, 0.0025, 0.4450), (10, 20, 0.2720, 0.7280), (20, 20, 0.8316, 1), (50, 5000, 0.00743, 0.01317)],
)  # fmt: skip
def test_intervals_are_those_of_tables(n_hits: int, n: int, low: float, high: float) -> None:
    found = clopper_pearson(n_hits, n, 0.05)
    assert (found.low, found.high) == (pytest.approx(low, abs=1e-4), pytest.approx(high, abs=1e-4))


def test_no_record_tells_nothing() -> None:
    assert clopper_pearson(0, 0, 0.05) == Interval(0, 1)


def stopped(hits: np.ndarray, tolerance: float, n_looks: int) -> tuple[Interval, int, str]:
    """Return the interval, the records and the decision at which one stops who looks so often as `looks` says."""
    sizes = looks(len(hits))
    for size in sizes:
        share = interval_at(int(hits[:size].sum()), size, n_looks)
        if (decision := decide(share, tolerance)) != "undecided":
            return share, size, decision
    return share, len(hits), "undecided"


@pytest.mark.parametrize("share", [0.01, 0.04, 0.05, 0.06, 0.2])
def test_an_interval_holds_whenever_one_stops(share: float) -> None:
    random = np.random.default_rng(1)
    draws = random.random((N_RUNS, 2000)) < share
    n_looks = len(looks(2000))
    ends = [stopped(hits, 0.05, n_looks) for hits in draws]
    missed = np.mean([not found.low <= share <= found.high for found, _, _ in ends])
    assert missed <= LEVEL
    wrong = np.mean([decision == ("different" if share <= 0.05 else "alike") for _, _, decision in ends])
    assert wrong <= LEVEL
    if share in (0.01, 0.2):
        assert np.mean([n for _, n, _ in ends]) < 400, "what is clear ends early"


def test_an_interval_of_one_look_does_not_hold_at_many() -> None:
    """The rule is needed: with the interval of a single look one is wrong too often."""
    random = np.random.default_rng(2)
    draws = random.random((N_RUNS, 4096)) < 0.05
    wrong = [stopped(hits, 0.05, 1)[2] != "undecided" for hits in draws]
    assert np.mean(wrong) > LEVEL


def test_mcnemar_is_a_test_of_the_records_that_one_model_alone_has_right() -> None:
    assert mcnemar(0, 0) == 1
    assert mcnemar(5, 5) == 1
    assert mcnemar(0, 6) == pytest.approx(2 / 64)
    assert mcnemar(12, 2) == pytest.approx(0.0129, abs=1e-4)
    random = np.random.default_rng(3)
    drawn = random.binomial(40, 0.5, 2000)
    assert np.mean([mcnemar(n, 40 - n) <= 0.05 for n in drawn]) <= 0.05
