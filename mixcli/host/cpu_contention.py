"""Use fewer threads while other programs need the cores.

llama.cpp's threads wait for one another after every operation, so one that waits for its core holds up all of them: two threads beside
a compiler on two cores do not get half the speed but a tenth, and single tokens take seconds. Linux tells how long each thread could run and
did not; where that is much, there is one thread less, until the others leave enough of the processor.
"""

import contextlib
import os
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

POLL_INTERVAL = 0.25  # seconds between two looks
LOST = 0.3  # threads' worth of waiting at which there are too many
SPARE = 0.7  # of a core that must be free for one more
COMPUTES = 0.5  # share of the time that a thread wanted to run in; one below it only listens or prints

_TASKS, _STAT = Path("/proc/self/task"), Path("/proc/stat")


@dataclass(frozen=True)
class Reading:
    """Seconds since some beginning: of the clock, of all work on the cores that this process may use, of its own, and of each thread: ran, waited."""

    at: float
    busy: float
    own: float
    threads: dict[int, tuple[float, float]]
    n_cores: int


def read() -> Reading | None:
    """Ask the kernel; None where it does not tell."""
    try:
        cores = os.sched_getaffinity(0)
        ticks = [line.split() for line in _STAT.read_text("ascii").splitlines() if line.startswith("cpu")]
        # user, nice, system, and interrupts; of these "nice" and "user" hold guests too
        busy = sum(
            sum(map(int, (*fields[1:4], *fields[6:8])))
            for fields in ticks
            if fields[0][3:].isdigit() and int(fields[0][3:]) in cores
        )
        threads = dict(_threads())
    except (OSError, AttributeError, ValueError):
        return None
    own = time.clock_gettime(time.CLOCK_PROCESS_CPUTIME_ID)
    return Reading(time.monotonic(), busy / os.sysconf("SC_CLK_TCK"), own, threads, len(cores))


def _threads() -> Iterator[tuple[int, tuple[float, float]]]:
    for task in _TASKS.iterdir():
        with contextlib.suppress(OSError):  # it has just ended
            ran, waited, _ = (task / "schedstat").read_text("ascii").split()
            yield int(task.name), (int(ran) / 1e9, int(waited) / 1e9)


class CpuContention:
    """How many threads are worth having now; asked before every step."""

    def __init__(self, most: int, look: Callable[[], Reading | None] = read) -> None:
        self._n = self._most = most
        self._look = look
        self._last = look()

    def n_threads(self) -> int:
        """Return the number, at most `most` and at least one; it changes every POLL_INTERVAL seconds at most."""
        if self._last is None or time.monotonic() - self._last.at < POLL_INTERVAL:
            return self._n
        last, self._last = self._last, self._look()
        if self._last is not None:
            self._n = advised(self._n, self._most, last, self._last)
        return self._n


def advised(n: int, most: int, before: Reading, now: Reading) -> int:
    """Return a number of threads for the next moment from what happened with `n` between two readings."""
    seconds = now.at - before.at
    lost = 0.0
    for thread, (ran, waited) in now.threads.items():
        ran_before, waited_before = before.threads.get(thread, (ran, waited))
        if ran - ran_before + waited - waited_before >= COMPUTES * seconds:
            lost += (waited - waited_before) / seconds
    if lost >= LOST:
        return max(1, n - max(1, round(lost)))
    others = max(0.0, now.busy - before.busy - (now.own - before.own)) / seconds
    return min(most, n + 1) if now.n_cores - others >= n + SPARE else n
