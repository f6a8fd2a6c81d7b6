"""How long a pull keeps trying when nothing comes: pauses that grow, and an end."""

import os
import threading
import time

from mixcli.hub.hub_errors import Place, explain, is_silent, is_transient, retry_after

SECONDS = 120.0  # without a single new byte; MIXCLI_PATIENCE sets another time
FIRST_SECONDS = (
    10.0  # the same for a first question that nobody hears: nothing is lost yet, and a person waits
)
FIRST_PAUSE, LONGEST_PAUSE = 0.5, 30.0


class Stopped(Exception):
    """Somebody asked a download to end."""


class Patience:
    """Counts the time since something last came; `failed` waits for the next try, or raises the error in words.

    `stop` ends a wait with Stopped; `first` says that nothing has been heard of the place before.
    """

    def __init__(self, place: Place, stop: threading.Event | None = None, *, first: bool = False) -> None:
        self._place, self._first = place, first
        self._stop = stop or threading.Event()
        self._limit = _limit()
        self.progressed()

    def progressed(self) -> None:
        """Say that something came: patience is whole again."""
        self._since = time.monotonic()
        self._pause = FIRST_PAUSE

    def failed(self, error: Exception) -> None:
        """Sleep until the next try is due; raises the error's sentence when it is final or patience would end meanwhile."""
        if not is_transient(error):
            raise explain(error, self._place) from error
        asked = retry_after(error)
        pause = self._pause if asked is None else asked
        limit = min(self._limit, FIRST_SECONDS) if self._first and is_silent(error) else self._limit
        if time.monotonic() - self._since + pause > limit:
            raise explain(error, self._place) from error
        if self._stop.wait(pause):
            raise Stopped
        self._pause = min(LONGEST_PAUSE, 2 * self._pause)


def _limit() -> float:
    try:
        return float(os.environ.get("MIXCLI_PATIENCE", SECONDS))
    except ValueError:
        return SECONDS
