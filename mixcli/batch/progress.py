"""Progress of a batch: a bar while it runs, one summary line at the end."""

import time

from mixcli.batch.runner import BatchResult, Tally
from mixcli.system.console import Bar
from mixcli.system.formatting import counted

EVERY = 0.1  # seconds between two looks
MIN_SECONDS = 2.0  # seconds of asking that make a rate


class BatchProgress:
    """Follows a batch. `n_bytes` is the input's size, None if unknown; `position` returns how much of it was read."""

    def __init__(self, bar: Bar, n_bytes: int | None) -> None:
        self._bar, self._n_bytes = bar, n_bytes
        self._asked = self._shown = time.monotonic()
        self.tally = Tally()

    def look(self, _done: BatchResult, tally: Tally, n_read: int) -> None:
        """Count one more record; `n_read` bytes of the input were read by then."""
        now = time.monotonic()
        self.tally = tally
        if now - self._shown >= EVERY:
            self._shown = now
            failed = f", {tally.n_failed:,} failed" if tally.n_failed else ""
            rate = f", {rate}" if (rate := self._rate()) else ""
            stage = f"{counted(tally.n_done, 'record')}{rate}{failed}"
            self._bar.update(n_read, self._n_bytes or 0, stage)

    @property
    def rate(self) -> float:
        """Return the records a second that were computed now, over all the time since the first was asked."""
        n_computed = self.tally.n_done - self.tally.n_known - self.tally.n_failed
        return n_computed / (time.monotonic() - self._asked)

    def _rate(self) -> str:
        """Return the rate for a sentence; nothing while too few records were computed for a stable one."""
        return f"{self.rate:.1f}/s" if time.monotonic() - self._asked >= MIN_SECONDS else ""

    def sentence(self) -> str:
        """Return what there is to say at the end."""
        tally = self.tally
        rate = f" ({rate})" if (rate := self._rate()) else ""
        parts = [f"{counted(tally.n_done, 'record')} in {time.monotonic() - self._asked:.1f} s{rate}"]
        if tally.n_known:
            parts.append(f"{tally.n_known:,} from an earlier run")
        if tally.n_failed:
            parts.append(f"{tally.n_failed:,} failed")
        return ", ".join(parts)
