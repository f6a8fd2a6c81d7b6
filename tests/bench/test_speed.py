"""bench.speed: turns are A B B A, and a ratio is that of neighbors, whatever the machine does over minutes."""

import itertools

import pytest

from bench.speed import LIMIT, MAX_OTHERS, Measured, Pair, SpeedRow, interval, turns
from mixcli.insight.bench_record import BenchTest

TEST = BenchTest("decode", 128)


def test_a_machine_that_slows_down_moves_no_ratio() -> None:
    """Rates fall by a third with each round, far more than the sides differ; ours is 2 % slower."""
    order: list[str] = []

    def side(name: str, share: float) -> Measured:
        order.append(name)
        return Measured(share * 100 * 0.67 ** ((len(order) - 1) // 4))

    pairs = list(
        itertools.chain.from_iterable(
            turns(lambda: side("A", 0.98), lambda: side("B", 1.0)) for _ in range(3)
        )
    )
    assert "".join(order) == "ABBA" * 3
    row = SpeedRow.of(TEST, pairs)
    assert (row.ratio, row.n_pairs) == (pytest.approx(0.98), 6)
    assert row.high - row.low < 1e-9
    assert not row.is_apart


def test_a_side_is_apart_only_where_the_interval_says_so() -> None:
    near = [Pair(Measured(ratio), Measured(1)) for ratio in (0.90, 0.99, 1.01, 1.02)]
    far = [Pair(Measured(ratio), Measured(1)) for ratio in (0.90, 0.92, 0.93, 0.95)]
    assert not SpeedRow.of(TEST, near).is_apart
    assert SpeedRow.of(TEST, far).is_apart
    low, high = interval([pair.ratio for pair in far])
    assert 0.90 <= low < 0.925 < high <= 0.95 < 1 - LIMIT + 1e-9
    assert interval([1.0, 1.1, 1.2]) == interval([1.0, 1.1, 1.2])


def test_a_pair_is_quiet_where_no_side_was_disturbed() -> None:
    assert Pair(Measured(1), Measured(1, MAX_OTHERS)).is_quiet
    assert not Pair(Measured(1, MAX_OTHERS + 0.01), Measured(1)).is_quiet
    assert not Pair(Measured(1), Measured(1, MAX_OTHERS + 0.01)).is_quiet
