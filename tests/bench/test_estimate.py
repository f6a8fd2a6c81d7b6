"""bench.estimate: intervals hold the true median as often as they claim, and verdicts follow from their ends."""

from collections.abc import Sequence
from math import nan

import numpy as np
import pytest

from bench.estimate import (
    MIN_PAIRS,
    QUIET,
    Estimate,
    Finding,
    Numbers,
    Promise,
    Verdict,
    findings,
    ratio,
    side_medians,
)

FASTER = Promise("rate", ("a", "rate"), ("b", "rate"), "at least", 1.5)
LESS = Promise("time", ("a", "late"), None, "at most", 1.3, unit="s")
ADDED = Promise("added", ("a", "ms"), ("b", "ms"), "at most", 3, is_difference=True, unit="ms")


@pytest.mark.parametrize("n_pairs", [MIN_PAIRS, 10, 20])
@pytest.mark.parametrize("skewed", [False, True])
def test_an_interval_holds_the_true_median_as_often_as_it_claims(n_pairs: int, skewed: bool) -> None:
    """Ratios around 1 with noise of 5 %; skewed: now and then one side is disturbed for a long time. 93 % +- 4 of 300."""
    random = np.random.default_rng(n_pairs)
    samples = (
        random.exponential(0.05, (300, n_pairs)) - 0.05 * np.log(2)
        if skewed
        else random.normal(0, 0.05, (300, n_pairs))
    )
    estimates = [Estimate.of(list(1 + row)) for row in samples]
    held = sum(one.low <= 1 <= one.high for one in estimates if one.low is not None and one.high is not None)
    assert 0.89 <= held / 300 <= 0.99


def test_a_wider_sample_has_a_wider_interval_and_more_pairs_a_narrower_one() -> None:
    def width(n: int, noise: float) -> float:
        low, high = Estimate.of(list(1 + np.random.default_rng(1).normal(0, noise, n))).ends or (0, 0)
        return high - low

    assert width(10, 0.01) < width(10, 0.1)
    assert width(200, 0.1) < width(10, 0.1) / 2


def test_few_pairs_have_their_range_and_one_has_no_interval() -> None:
    assert Estimate.of([1.0]) == Estimate(1.0, None, None, 1)
    assert Estimate.of([1.2, 1.0, 1.1]) == Estimate(1.1, 1.0, 1.2, 3)
    assert Estimate.of([1.0, 1.1, 1.2] * 4) == Estimate.of([1.0, 1.1, 1.2] * 4)


@pytest.mark.parametrize(
    ("low", "high", "at_least", "at_most"),
    [
        (1.0, 1.2, Verdict.KEPT, Verdict.OPEN),
        (0.9, 1.2, Verdict.OPEN, Verdict.OPEN),
        (0.9, 1.0, Verdict.OPEN, Verdict.KEPT),
        (0.8, 0.9, Verdict.NOT_KEPT, Verdict.KEPT),
        (1.1, 1.2, Verdict.KEPT, Verdict.NOT_KEPT),
    ],
)
def test_the_worse_end_keeps_a_promise(low: float, high: float, at_least: Verdict, at_most: Verdict) -> None:
    estimate = Estimate((low + high) / 2, low, high, 10)
    assert estimate.verdict("at least", 1.0) == at_least
    assert estimate.verdict("at most", 1.0) == at_most


def test_a_promise_is_held_pair_by_pair() -> None:
    rounds = {
        "a": [
            {"rate": 10.0, "ms": 12.0, "others": 0.02},
            {"rate": 30.0, "ms": 22.0},
            {"rate": 20.0, "ms": 31.0},
        ],
        "b": [
            {"rate": 10.0, "ms": 10.0},
            {"rate": 10.0, "ms": 20.0, "others": 0.04},
            {"rate": 10.0, "ms": 30.0},
        ],
    }
    rate, added = findings((FASTER, LESS, ADDED), rounds)  # nothing is late
    assert (rate.estimate, rate.unit, rate.others) == (Estimate(2.0, 1.0, 3.0, 3), "x", 0.04)
    assert (added.estimate, added.unit) == (Estimate(2.0, 1.0, 2.0, 3), "ms")
    assert (rate.words, added.words) == ("open", "kept")
    assert FASTER.finding({"a": rounds["a"]}) is None
    assert ratio(rounds, ("a", "rate"), ("b", "rate")) == rate.estimate
    assert side_medians(rounds)["a"]["rate"] == 20.0


def _rates(*disturbed: float, quiet: Sequence[float]) -> dict[str, list[Numbers]]:
    """Return rounds in which `a` has these rates and `b` has 10, and other programs ran beside `b` in those that are given first."""
    return {
        "a": [{"rate": 10 * one, "others": 0.0} for one in (*disturbed, *quiet)],
        "b": [
            {"rate": 10.0, "others": QUIET + 0.5 if index < len(disturbed) else QUIET}
            for index in range(len(disturbed) + len(quiet))
        ],
    }


def test_disturbed_pairs_are_left_out_where_enough_are_quiet() -> None:
    rounds = _rates(0.1, 9.0, quiet=[1.6, 1.7, 1.8])
    (found,) = findings([FASTER], rounds)
    assert (found.estimate, found.others, found.words) == (Estimate(1.7, 1.6, 1.8, 3), QUIET, "kept")
    assert ratio(rounds, ("a", "rate"), ("b", "rate")) == found.estimate
    assert side_medians({"b": [{"rate": 1.0, "others": 0.9}, {"rate": 2.0, "others": 0.0}]})["b"]["rate"] == 2


@pytest.mark.parametrize("rates", [(0.5, 0.6, 0.7), (1.6, 1.7, 1.8)])
def test_a_promise_is_open_where_most_pairs_were_disturbed(rates: tuple[float, ...]) -> None:
    rounds = _rates(*rates, quiet=[1.0, 2.0])
    (found,) = findings([FASTER], rounds)
    assert (found.verdict, found.words) == (Verdict.OPEN, "open, disturbed")
    assert (found.estimate.n_pairs, found.others) == (5, QUIET + 0.5)
    assert ratio(rounds, ("a", "rate"), ("b", "rate")).is_disturbed
    assert Finding.from_data(found.to_data()) == found


def test_what_needs_no_quiet_machine_counts_in_every_pair() -> None:
    whole = Promise("whole", ("a", "rate"), None, "at least", 10, needs_quiet=False)
    (found,) = findings([whole], _rates(0.1, 0.2, 0.3, quiet=[]))
    assert (found.verdict, found.estimate.n_pairs) == (Verdict.NOT_KEPT, 3)


def test_a_range_is_called_one() -> None:
    few, many = (Finding("rate", Estimate.of([1.0, 1.1, 1.2] * n), "at least", 1, "x") for n in (1, 4))
    assert (few.estimate.is_interval, few.interval) == (False, "1.00 to 1.20, range")
    assert many.estimate.is_interval and "range" not in many.interval


@pytest.mark.parametrize(
    ("value", "limit", "unit", "words"),
    [
        (1.004, 1, "x", "1.004"),
        (0.9996, 1, "x", "0.9996"),
        (1.0, 1, "x", "1.00"),
        (1.5, 1, "x", "1.50"),
        (150.3, 150, "", "150.3"),
        (1234.5, 150, "", "1,234"),
        (0.004, 0.02, "", "0.004"),
        (3, 2, "", "3"),
        (1 + 2**-52, 1, "x", "1.0000000000000002"),
    ],
)
def test_the_digits_show_on_which_side_of_its_limit_a_number_is(
    value: float, limit: float, unit: str, words: str
) -> None:
    found = Finding("rate", Estimate(value, None, None, 1), "at least", limit, unit)
    assert found.number(value) == words
    assert f"{words}{unit} (no interval" in found.line


def test_what_was_not_measured_is_neither_kept_nor_not() -> None:
    found = Finding("rate", Estimate(nan, None, None, 1), "at least", 1)
    assert (found.verdict, found.words) == (Verdict.NOT_MEASURED, "not measured")
    assert found.line == "rate: nothing (no interval, pairs: 1), at least 1: not measured"


def test_an_older_result_of_a_disturbed_machine_is_open() -> None:
    data = {"what": "rate", "value": 1.6, "sign": "at least", "limit": 1.5, "others": 0.3}
    assert Finding.from_data(data).words == "open, disturbed"


def test_a_finding_is_read_as_it_was_written() -> None:
    found = Finding("rate", Estimate.of([1.0, 1.6]), "at least", 1.5, "x", 0.01)
    assert Finding.from_data(found.to_data()) == found
    assert found.line == "rate: 1.30x (1.00 to 1.60, range, pairs: 2), at least 1.5x: open"


@pytest.mark.parametrize("key", ["ratio", "value"])
def test_an_older_result_says_that_it_has_no_interval(key: str) -> None:
    data = {"what": "rate", key: 1.6, "sign": "at least", "limit": 1.5, "kept": True}
    found = Finding.from_data(data, n_rounds=3)
    assert (found.estimate, found.words) == (Estimate(1.6, None, None, 3), "kept, no interval")
    assert Finding.from_data({**data, key: 1.4}).words == "not kept, no interval"
    assert Finding.from_data({**data, "interval": [1.55, 1.65], "pairs": 6}).words == "kept"
