"""Tokens a second over the last seconds, on a clock of the test."""

import pytest

from mixcli.host.rates import WINDOW, RecentRate


def test_the_rate_is_right_from_the_first_step_and_ends_with_the_window() -> None:
    rate = RecentRate()
    assert rate.per_second(100.0) == 0
    rate.add(0, 100.0, 100.5)
    assert rate.per_second(100.5) == 0
    rate.add(512, 101.0, 103.0)  # one long step
    assert rate.per_second(103.0) == pytest.approx(256)
    assert rate.per_second(105.0) == pytest.approx(128), "nothing came since"
    assert rate.per_second(103.0 + 2 * WINDOW) == 0


def test_a_steady_rate_stays_the_same_while_the_window_moves() -> None:
    rate = RecentRate()
    now = 1000.0
    for _ in range(400):
        rate.add(2, now, now + 0.05)
        now += 0.05
        assert rate.per_second(now) == pytest.approx(40)


def test_many_counts_of_one_slot_are_summed() -> None:
    rate = RecentRate()
    for i in range(10):
        rate.add(1, 10 + i / 100, 10 + (i + 1) / 100)
    assert rate.per_second(10.1) == pytest.approx(100)
