"""bench.speed: a test is an error only where both are surely apart."""

from bench.estimate import MIN_PAIRS
from bench.speed import LIMIT, OURS, THEIRS, SpeedRow
from mixcli.insight.bench_record import BenchTest

TEST = BenchTest("decode", 128)


def row(*ratios: float, others: float = 0.03) -> SpeedRow:
    return SpeedRow.of(
        TEST,
        {
            OURS: [{"tok/s": 10 * ratio, "others": 0.01} for ratio in ratios],
            THEIRS: [{"tok/s": 10.0, "others": others} for _ in ratios],
        },
    )


def test_a_side_is_apart_only_where_the_interval_says_so() -> None:
    assert not row(0.90, 0.99, 1.01, 1.02).is_apart
    assert row(*[0.90, 0.92, 0.93, 0.95] * 3).is_apart
    assert row(*[1 - LIMIT - 0.001] * MIN_PAIRS).is_apart


def test_a_range_shows_no_side_apart() -> None:
    few = row(*[0.90] * (MIN_PAIRS - 1))
    assert (few.low, few.is_interval, few.is_apart) == (0.9, False, False)
    assert not row(0.90).is_apart


def test_a_disturbed_machine_shows_no_side_apart() -> None:
    found = row(*[0.90] * 10, others=0.5)
    assert (found.is_disturbed, found.is_interval, found.is_apart) == (True, True, False)


def test_a_row_has_both_rates_and_what_others_had() -> None:
    found = row(0.9, 1.0, 1.1)
    assert (found.test, found.ours, found.theirs, found.ratio) == (TEST.words, 10.0, 10.0, 1.0)
    assert (found.n_pairs, found.others) == (3, 0.03)
