"""The pace of steps: tokens follow the measured time, and prompts share a step fairly."""

import hypothesis.strategies as st
import pytest
from hypothesis import given

from mixcli.engine.pace import (
    AWAITED,
    CROWD,
    FEW,
    IDLE,
    MIN_PREFILL,
    RETRY,
    TILE,
    StepLimits,
    StepPace,
    shares,
)


@pytest.mark.parametrize(("floor", "each"), [(0.0, 1 / 300), (0.1, 1 / 400), (0.01, 1 / 5000), (3.0, 1 / 20)])
def test_steps_come_to_take_their_time_whatever_they_cost(floor: float, each: float) -> None:
    """A step costs a floor and something for each token; the pace finds the number that takes its time, or the least that is worth it."""
    pace = StepPace(512, 2048)
    assert pace.limits() == StepLimits(512, 2048), "nothing was measured"
    n = 512
    for _ in range(20):
        pace.observe(n, n, floor + n * each)
        n = pace.limits().awaited
    if n == TILE and floor + n * each > AWAITED:  # one that is measured again
        pace.observe(n, n, floor + n * each)
        n = pace.limits().awaited
    assert n in (MIN_PREFILL, 512) or n % TILE == 0
    assert n == MIN_PREFILL or floor + (n - TILE / 2) * each <= 1.05 * AWAITED
    assert n == 512 or floor + (n + TILE) * each >= 0.95 * AWAITED


@pytest.mark.parametrize(("rate", "idle"), [(5000, 2048), (520, 2048), (300, 320), (200, 192), (20, 128)])
def test_a_step_that_nobody_waits_for_takes_a_second_unless_that_were_too_few_tokens(
    rate: float, idle: int
) -> None:
    pace = StepPace(512, 2048)
    pace.observe(512, 512, 512 / rate)
    assert pace.limits().idle == idle
    assert idle in (2048, 128) or abs(idle - rate * IDLE) <= TILE


def test_a_machine_that_gets_slower_is_noticed_and_single_tokens_say_nothing() -> None:
    pace = StepPace(512, 512)
    pace.observe(200, 200, 0.5)
    before = pace.limits()
    for _ in range(10):
        pace.observe(32, 1, 5.0)
    assert pace.limits() == before
    chosen = []
    for _ in range(10 + 3 * RETRY):
        chosen.append(pace.limits().awaited)
        pace.observe(chosen[-1], chosen[-1], chosen[-1] / 50)
    assert chosen[10:].count(MIN_PREFILL) >= 2 * RETRY
    assert 1 <= chosen[10:].count(TILE) <= 4, "a tile is measured now and then"


def test_half_a_tile_that_takes_longer_than_a_whole_one_is_given_up() -> None:
    """As behind a long prompt, where llama.cpp's attention computes a tile at once and less token by token."""
    pace = StepPace(512, 512)
    pace.observe(64, 64, 1.9)  # a disturbed step
    assert pace.limits().awaited == MIN_PREFILL
    chosen = []
    for _ in range(100):
        chosen.append(pace.limits().awaited)
        pace.observe(chosen[-1], chosen[-1], 0.8 if chosen[-1] == TILE else 0.9)
    assert chosen.count(MIN_PREFILL) <= 2 * RETRY
    assert set(chosen[3 * RETRY :]) == {TILE}


def test_a_step_that_was_cut_off_makes_the_next_one_shorter_on_a_machine_that_was_never_measured() -> None:
    pace = StepPace(512, 512)
    pace.observe(512, 512, 0.5, done=False)
    assert pace.limits() == StepLimits(512, 512), "cut off at once, which says nothing"
    pace.observe(512, 512, 700.0, done=False)
    assert pace.limits() == StepLimits(MIN_PREFILL, 128) or pace.limits() == StepLimits(TILE, 128)
    measured = StepPace(512, 512)
    measured.observe(512, 512, 0.25)
    measured.observe(512, 512, 700.0, done=False)
    assert measured.limits() == StepLimits(512, 512)


@pytest.mark.parametrize("n_writing", [0, 1, CROWD - 1, CROWD, 31, 32, 40])
@pytest.mark.parametrize("n_most", [TILE, 2 * TILE, 3 * TILE, FEW * TILE])
def test_a_step_beside_a_crowd_stays_below_a_tile_unless_it_may_have_many(
    n_writing: int, n_most: int
) -> None:
    n_all = TILE - 1 if CROWD <= n_writing < TILE - MIN_PREFILL and n_most < FEW * TILE else n_most
    assert StepLimits(n_most, 512).left(n_writing, 512).awaited == max(MIN_PREFILL, n_all - n_writing)


@given(
    st.lists(st.integers(1, 4000), max_size=32),
    st.builds(StepLimits, st.integers(0, 512), st.integers(0, 512)),
    st.booleans(),
)
def test_shares(missing: list[int], limits: StepLimits, awaited: bool) -> None:
    found = shares(missing, limits, awaited=awaited)
    n_most = limits.awaited if awaited else limits.idle
    assert all(0 <= n <= lacks for n, lacks in zip(found, missing, strict=True))
    assert sum(found) <= n_most
    if not missing or not n_most:
        return
    assert found[0] > 0, "the oldest is never starved"
    completed = any(n == lacks for n, lacks in zip(found, missing, strict=True))
    unfinished = [n for n, lacks in zip(found, missing, strict=True) if 0 < n < lacks]
    assert len(unfinished) <= 2, "one after the other, and the oldest"
    if awaited or completed:
        assert sum(unfinished) <= max(1, limits.awaited)
    else:
        assert sum(found) == min(n_most, sum(missing)), "nobody waits: the step is full"
