"""Show what another process does while waiting for its lock."""

import sys
import time
from collections.abc import Callable

from mixcli.store.hashing import Report
from mixcli.system.console import console

NOTE = 2.0  # seconds; a shorter wait is not worth a line


class Waiting:
    """What `locks.exclusive` calls while another process has the lock.

    `progress` returns the bytes present and the total. If no bar can be drawn, a line names the other process each time
    that it changes.
    """

    def __init__(self, progress: Callable[[], tuple[float, float]], report: Report, prefix: str = "") -> None:
        self._progress, self._report, self._prefix = progress, report, prefix
        self._told, self._begin = "", time.monotonic()

    def __call__(self, words: str) -> object:
        done, total = self._progress()
        self._report(done, total, self._prefix + words)
        is_long = time.monotonic() - self._begin >= NOTE
        if is_long and words != self._told and not console.is_terminal(sys.stderr):
            self._told = words
            console.note(f"waiting: {self._prefix}{words}")
        return done
