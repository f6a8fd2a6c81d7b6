"""bench.turns: passes go forth and back, what the machine does over minutes moves no ratio, and what was disturbed is measured again."""

import contextlib
import itertools
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import pytest

from bench import turns
from bench.estimate import Estimate, ratio
from bench.process import Share, keep_children, own_seconds, watch
from bench.turns import MAX_TRIES, Side, all_turns, best, take_turns
from mixcli.system.process_state import computed
from tests.support.waiting import wait_for

SECONDS = 0.5
BURN = f"import time\nwhile time.process_time() < {SECONDS}: pass\ntime.sleep(600)"
ORPHAN = """
import subprocess, sys
print(subprocess.Popen([sys.executable, "-c", sys.argv[1]], stdout=subprocess.DEVNULL).pid)
"""
linux = pytest.mark.skipif(sys.platform != "linux", reason="looks into /proc")


def _sides(names: str, order: list[str]) -> list[Side]:
    return [Side(name, lambda name=name: order.append(name) or {"rate": len(order)}) for name in names]  # type: ignore[misc]


def _disturb(monkeypatch: pytest.MonkeyPatch, *shares: float) -> None:
    """Let others have these shares of the machine, one for each measurement, then nothing."""
    given = itertools.chain(shares, itertools.repeat(0.0))

    @contextmanager
    def share() -> Iterator[Share]:
        yield Share(next(given))

    monkeypatch.setattr(turns, "watch", share)


@pytest.mark.parametrize(("names", "expected"), [("ab", "abbaabba"), ("abc", "abccbaabccba")])
def test_every_other_pass_is_reversed(names: str, expected: str, monkeypatch: pytest.MonkeyPatch) -> None:
    _disturb(monkeypatch)
    order: list[str] = []
    rounds = all_turns(_sides(names, order), 4, show=False)
    assert "".join(order) == expected
    assert all(len(passes) == 4 for passes in rounds.values())


def test_a_result_is_there_after_every_pass(monkeypatch: pytest.MonkeyPatch) -> None:
    _disturb(monkeypatch)
    assert [len(rounds["a"]) for rounds in take_turns(_sides("ab", []), 3, show=False)] == [1, 2, 3]


def test_a_machine_that_slows_down_steadily_moves_no_ratio(monkeypatch: pytest.MonkeyPatch) -> None:
    """Rates fall by a percent with each measurement; ours is 2 % slower. Always ours first would show 1 % less."""
    _disturb(monkeypatch)
    clock = itertools.count()
    sides = [
        Side(name, lambda share=share: {"rate": share * 0.99 ** next(clock)})  # type: ignore[misc]
        for name, share in (("ours", 98.0), ("theirs", 100.0))
    ]
    found = ratio(all_turns(sides, 10, show=False), ("ours", "rate"), ("theirs", "rate"))
    assert found.value == pytest.approx(0.98, abs=1e-3)


def test_a_disturbed_pass_is_measured_again_in_its_order(monkeypatch: pytest.MonkeyPatch) -> None:
    _disturb(monkeypatch, 0.0, 0.5)  # the first pass, while b runs
    order: list[str] = []
    rounds = all_turns(_sides("ab", order), 2, show=False)
    assert "".join(order) == "ababba"
    assert [numbers["rate"] for numbers in rounds["a"]] == [3, 6]


def test_the_least_disturbed_pass_counts_where_none_is_quiet(monkeypatch: pytest.MonkeyPatch) -> None:
    _disturb(monkeypatch, *(0.3, 0.9)[:MAX_TRIES])
    rounds = all_turns(_sides("a", []), 1, show=False)
    assert list(rounds["a"]) == [{"rate": 1, "others": 0.3}]


def test_the_best_setting_is_chosen() -> None:
    sides = [Side(str(value), lambda value=value: {"rate": value}) for value in (3, 5, 4)]  # type: ignore[misc]
    assert best(sides, "rate").name == "5"


def test_one_pass_has_no_interval(monkeypatch: pytest.MonkeyPatch) -> None:
    _disturb(monkeypatch)
    rounds = all_turns(_sides("ab", []), 1, show=False)
    assert ratio(rounds, ("b", "rate"), ("a", "rate")) == Estimate(2.0, None, None, 1)


@pytest.fixture
def orphan() -> Iterator[Callable[[], int]]:
    """Start a program that uses the processor for half a second, and whose parent has ended; return its process."""
    started = list[int]()

    def start() -> int:
        done = subprocess.run(
            [sys.executable, "-c", ORPHAN, BURN], check=True, stdout=subprocess.PIPE, text=True
        )
        started.append(int(done.stdout))
        return started[-1]

    yield start
    for pid in started:
        os.kill(pid, signal.SIGKILL)
        with contextlib.suppress(ChildProcessError):
            os.waitpid(pid, 0)


@linux
def test_what_outlives_its_parent_is_none_of_the_others(orphan: Callable[[], int]) -> None:
    before = own_seconds()
    with watch():
        orphan()
    wait_for(lambda: own_seconds() - before > 0.9 * SECONDS)


@linux
def test_what_was_started_for_the_warm_up_is_none_of_the_others(orphan: Callable[[], int]) -> None:
    before = own_seconds()
    with keep_children():
        orphan()
        with watch():
            wait_for(lambda: own_seconds() - before > 0.9 * SECONDS)
        again = own_seconds()
        orphan()  # a block inside has not ended this one
        wait_for(lambda: own_seconds() - again > 0.9 * SECONDS)


@linux
def test_what_was_started_elsewhere_is_one_of_the_others(orphan: Callable[[], int]) -> None:
    pid = orphan()  # of no block, so it is no child of this process any more
    with watch() as share:
        wait_for(
            lambda: sum(map(int, computed(pid).split())) > 100 * SECONDS / 2
        )  # user and system time, in ticks
    assert share.others > 0
