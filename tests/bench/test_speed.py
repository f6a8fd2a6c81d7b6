"""bench.speed: a test is an error only where both are surely apart."""

from bench.speed import LIMIT, OURS, THEIRS, SpeedRow
from mixcli.insight.bench_record import BenchTest

TEST = BenchTest("decode", 128)


def row(*ratios: float) -> SpeedRow:
    return SpeedRow.of(
        TEST,
        {
            OURS: [{"tok/s": 10 * ratio, "others": 0.01} for ratio in ratios],
            THEIRS: [{"tok/s": 10.0, "others": 0.03} for _ in ratios],
        },
    )


def test_a_side_is_apart_only_where_the_interval_says_so() -> None:
    assert not row(0.90, 0.99, 1.01, 1.02).is_apart
    assert row(*[0.90, 0.92, 0.93, 0.95] * 3).is_apart
    assert not row(0.90).is_apart
    assert row(0.95, 1 - LIMIT - 0.001).is_apart


def test_a_row_has_both_rates_and_what_others_had() -> None:
    found = row(0.9, 1.0, 1.1)
    assert (found.test, found.ours, found.theirs, found.ratio) == (TEST.words, 10.0, 10.0, 1.0)
    assert (found.n_pairs, found.others) == (3, 0.03)
