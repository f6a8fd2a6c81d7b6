"""How far a batch is, for a person: a bar while it runs, one sentence when it ends."""

import time

from mixcli.batch.runner import Done, Tally
from mixcli.console import Bar
from mixcli.words import counted

EVERY = 0.1  # seconds between two looks


class Progress:
    """Follows a batch. `n_bytes` is the input's size, None where nobody knows; `position` tells how much of it was read."""

    def __init__(self, bar: Bar, n_bytes: int | None) -> None:
        self._bar, self._n_bytes = bar, n_bytes
        self._started = self._shown = time.monotonic()
        self._first: float | None = (
            None  # when the first record was computed: the load is no part of the rate
        )
        self.tally = Tally()

    def look(self, done: Done, tally: Tally, n_read: int) -> None:
        """Take note of one more record; `n_read` bytes of the input were read by then."""
        now = time.monotonic()
        self.tally = tally
        if self._first is None and not done.known:
            self._first = now
        if now - self._shown >= EVERY:
            self._shown = now
            failed = f", {tally.n_failed:,} failed" if tally.n_failed else ""
            stage = f"{counted(tally.n_done, 'record')}, {self.rate:.1f}/s{failed}"
            self._bar.update(n_read, self._n_bytes or 0, stage)

    @property
    def rate(self) -> float:
        """Return the records a second that were computed now, from the first one on."""
        n_computed = self.tally.n_done - self.tally.n_known - self.tally.n_failed
        seconds = time.monotonic() - (self._first or self._started)
        return n_computed / seconds if seconds > 0 else 0.0

    def sentence(self) -> str:
        """Return what there is to say at the end."""
        tally = self.tally
        parts = [
            f"{counted(tally.n_done, 'record')} in {time.monotonic() - self._started:.1f} s ({self.rate:.1f}/s)"
        ]
        if tally.n_known:
            parts.append(f"{tally.n_known:,} known from an earlier run")
        if tally.n_failed:
            parts.append(f"{tally.n_failed:,} failed")
        return ", ".join(parts)
