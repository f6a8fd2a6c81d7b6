"""How the cores are used: by this process, by each of its threads, and by other programs."""

import contextlib
import os
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

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


def others(before: Reading, now: Reading) -> float:
    """Return how many cores other programs used between two readings, in the mean."""
    return max(0.0, now.busy - before.busy - (now.own - before.own)) / max(now.at - before.at, 1e-9)
