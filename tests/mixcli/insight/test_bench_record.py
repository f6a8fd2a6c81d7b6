"""Runs that are kept: what two of them say, which one a name means, and what is drawn."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from mixcli.errors import IntegrityError, UsageError
from mixcli.insight.bench_picture import drawn
from mixcli.insight.bench_record import (
    BenchRun,
    BenchSample,
    BenchTest,
    earlier,
    folder,
    ratio_of,
    read,
    save,
    t_quantile,
)

DECODE = BenchTest("decode", 16, 128, 4)
RUN = BenchRun("2026-01-02T03-04-05Z", "demo:Q4_K_M", 7, "{}", "2 cores", {"host": 12.5})


def measured(*rates: float, at: str = RUN.at, model: str = RUN.model) -> BenchRun:
    run = replace(RUN, at=at, model=model)
    for rate in rates:
        run = run.with_sample(DECODE, BenchSample(rate, 0.5), 40.0)
    return run


def test_samples_of_one_test_are_one_result() -> None:
    run = measured(10, 30, 20).with_sample(BenchTest("prefill", 512), BenchSample(100.0), None)
    assert [(one.test.words, one.median, one.share) for one in run.results] == [
        ("decode 16 at depth 128, 4 texts", 20, 0.5),
        ("prefill 512", 100, None),
    ]
    assert run.others == 0.5
    assert (DECODE.n_text, DECODE.n_cells) == (144, 576)


def test_the_interval_of_a_ratio_holds_the_truth_as_often_as_it_says() -> None:
    random = np.random.default_rng(0)
    hits, n = 0, 400
    for _ in range(n):
        before, now = (
            10 * np.exp(0.05 * random.standard_normal(5)),
            12 * np.exp(0.1 * random.standard_normal(4)),
        )
        ratio = ratio_of(now.tolist(), before.tolist())
        assert ratio.low is not None
        assert ratio.high is not None
        hits += ratio.low <= 1.2 <= ratio.high
    assert 0.92 <= hits / n <= 0.985
    assert ratio_of([10.0], [5.0, 5.0]) == replace(ratio_of([10.0], [5.0]), value=pytest.approx(2))
    assert ratio_of([10.0], [5.0]).low is None


def test_quantiles_fall_with_the_degrees_of_freedom() -> None:
    found = [t_quantile(freedom) for freedom in (0.5, 1, 2.9, 20, 21, 50, 10_000)]
    assert found == sorted(found, reverse=True)
    assert found[:3] == [12.706, 12.706, 4.303]
    assert found[-1] == pytest.approx(1.96, abs=0.03)


def test_an_earlier_run_is_found_by_what_a_person_has(home: Path, tmp_path: Path) -> None:
    first = measured(10, 11, at="2026-01-01T00-00-00Z")
    second = measured(20, 21, at="2026-01-02T00-00-00Z")
    other = measured(1, 2, at="2026-01-03T00-00-00Z", model="other")
    paths = [save(one) for one in (first, second, other)]
    (folder() / "2026-01-09-broken.json").write_text("{}")
    for name, run in (("last", second), ("2026-01-01", first), (str(paths[2]), other)):
        found = earlier(name, RUN.model)
        assert (found.at, found.model, found.results[0].rates) == (run.at, run.model, run.results[0].rates)
        assert (found.placement, found.machine, found.n_bytes) == (run.placement, run.machine, run.n_bytes)
    assert json.loads(paths[0].read_text())["results"][0]["share_of_roof"] == pytest.approx(10.5 / 40)
    for name, sentence in (
        ("2026-01", "4 saved runs begin with 2026-01"),
        ("no", "saved run not found: no"),
    ):
        with pytest.raises(UsageError, match=sentence):
            earlier(name, RUN.model)
    with pytest.raises(UsageError, match="no earlier run of strange"):
        earlier("last", "strange")
    mine = tmp_path / "mine.json"
    whole = paths[0].read_text()
    broken = (
        whole.replace("10", "-1"),
        whole.replace('"decode"', "[]"),
        whole.replace("11", "NaN"),
        "[" * 100_000,
    )
    for text in ("notes", "[]", '{"results": []}', *broken):
        mine.write_text(text)
        with pytest.raises(IntegrityError, match="is not a run of mixcli bench"):
            read(mine)


def test_a_bar_fills_up_to_the_share_and_marks_the_earlier_run() -> None:
    run = measured(20).with_sample(BenchTest("prefill", 512), BenchSample(100.0), None)
    first, second = drawn(run, 76, measured(8))
    assert first == "decode 16 at depth 128, 4 texts ████▌███████░░░░░░░░░░░░░ 20.0 of 40.0 tok/s"
    assert second.endswith("█ 100.0 tok/s")
    assert max(map(len, (first, second))) <= 76
