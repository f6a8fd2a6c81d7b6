"""Fewer threads on a crowded processor: what is advised, and that the kernel really tells."""

import subprocess
import sys

import pytest

from mixcli.host.cpu_contention import CpuContention, Reading, advised, read

SECONDS = 2.0


def after(n_cores: int, others: float, *threads: tuple[float, float]) -> tuple[Reading, Reading]:
    """Give two readings between which others had so many cores, and each thread the shares (ran, waited) of the time."""
    before = Reading(10.0, 100.0, 50.0, dict.fromkeys(range(len(threads)), (20.0, 1.0)), n_cores)
    own = sum(ran for ran, _ in threads) * SECONDS
    now = {n: (20.0 + ran * SECONDS, 1.0 + waited * SECONDS) for n, (ran, waited) in enumerate(threads)}
    return before, Reading(10.0 + SECONDS, 100.0 + own + others * SECONDS, 50.0 + own, now, n_cores)


FULL, HALF, IDLE = (1.0, 0.0), (0.5, 0.5), (0.02, 0.3)


@pytest.mark.parametrize(
    ("n", "most", "n_cores", "others", "threads", "advice"),
    [
        (2, 2, 2, 0.0, (FULL, FULL), 2),
        (2, 2, 2, 1.0, (HALF, HALF), 1),
        (8, 8, 8, 1.0, (HALF, *[FULL] * 7), 7),
        (8, 8, 8, 4.0, (*[HALF] * 6, *[FULL] * 2), 5),
        (1, 8, 2, 2.0, (HALF,), 1),
        (2, 2, 2, 0.1, ((0.95, 0.05), FULL, IDLE), 2),
        (1, 2, 2, 1.0, (FULL,), 1),
        (1, 2, 2, 0.2, (FULL,), 2),
        (6, 8, 8, 1.0, (FULL,) * 6, 7),
        (7, 8, 8, 1.0, (FULL,) * 7, 7),
        (8, 8, 16, 4.0, (FULL,) * 8, 8),
    ],
)
def test_advice(
    n: int, most: int, n_cores: int, others: float, threads: tuple[tuple[float, float], ...], advice: int
) -> None:
    assert advised(n, most, *after(n_cores, others, *threads)) == advice


def test_a_thread_that_has_just_begun_has_not_waited() -> None:
    before, now = after(2, 1.0, HALF)
    now.threads[99] = (50.0, 50.0)
    assert advised(2, 2, before, now) == 1
    assert advised(2, 2, Reading(before.at, before.busy, before.own, {}, 2), now) == 2


def test_a_kernel_that_does_not_tell_changes_nothing() -> None:
    crowding = CpuContention(4, lambda: None)
    assert crowding.n_threads() == 4


CROWDED = """
import hashlib, os, subprocess, sys, time
from mixcli.host.cpu_contention import CpuContention
os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
other = subprocess.Popen([sys.executable, "-c", "while True: pass"])
try:
    crowding, end = CpuContention(2), time.monotonic() + 20
    piece = bytes(1 << 20)
    while (n := crowding.n_threads()) == 2 and time.monotonic() < end:
        hashlib.sha256(piece)
    print(n)
finally:
    other.kill()
    other.wait()
"""


@pytest.mark.skipif(read() is None, reason="this system does not tell how long threads wait")
def test_a_neighbour_on_the_same_core_is_noticed() -> None:
    done = subprocess.run([sys.executable, "-c", CROWDED], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "1"


@pytest.mark.skipif(read() is None, reason="this system does not tell how long threads wait")
def test_what_others_do_is_told_from_what_we_do() -> None:
    first = read()
    subprocess.run([sys.executable, "-c", "sum(range(20_000_000))"], check=True)
    second = read()
    assert first is not None
    assert second is not None
    assert second.busy - first.busy > 0.1 > second.own - first.own
