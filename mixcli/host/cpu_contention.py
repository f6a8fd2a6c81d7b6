"""Use fewer threads while other programs need the cores.

llama.cpp's threads wait for one another after every operation, so one that waits for its core holds up all of them: two threads beside
a compiler on two cores do not get half the speed but a tenth, and single tokens take seconds. Linux tells how long each thread could run and
did not; where that is much, there is one thread less, until the others leave enough of the processor.
"""

import time
from collections.abc import Callable

from mixcli.system.cpu_use import Reading, others, read

POLL_INTERVAL = 0.25  # seconds between two looks
LOST = 0.3  # threads' worth of waiting at which there are too many
SPARE = 0.7  # of a core that must be free for one more
COMPUTES = 0.5  # share of the time that a thread wanted to run in; one below it only listens or prints


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
    return min(most, n + 1) if now.n_cores - others(before, now) >= n + SPARE else n
