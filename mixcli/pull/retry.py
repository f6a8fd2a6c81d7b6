"""When a pull retries: after which failures, with growing pauses, and for how long."""

import math
import os
import ssl
import threading
import time

import httpx2
from huggingface_hub.errors import HfHubHTTPError

from mixcli.errors import UsageError
from mixcli.pull.hub_errors import Place, cause_of, explain, retry_after, speaks_no_tls
from mixcli.pull.hub_http import MIN_RATE, Mismatch

SECONDS = 120.0  # without progress; MIXCLI_PATIENCE sets another time
FIRST_SECONDS = 10.0  # the same for the first request: nothing is lost yet, and a person waits
BUSY = {408, 425, 429, 500, 502, 503, 504}  # HTTP statuses after which the same request may work
FIRST_PAUSE, LONGEST_PAUSE = 0.5, 30.0
MISMATCHES = 3  # wrong answers in a row


class Cancelled(Exception):
    """The download was cancelled."""


class RetryPolicy:
    """Counts the time since there was progress; `failed` waits for the next try, or raises the error in words.

    `stop` ends a wait with Cancelled; `first` says that nothing was received from the place before.
    """

    def __init__(self, place: Place, stop: threading.Event | None = None, *, first: bool = False) -> None:
        self._place, self._first = place, first
        self._stop = stop or threading.Event()
        self._limit = seconds()
        self._renew()

    def _renew(self) -> None:
        self._since = time.monotonic()
        self._pause = FIRST_PAUSE
        self._received = self._mismatches = 0

    def received(self, n_bytes: int) -> None:
        """Record how many bytes came: the time limit starts again when that is fast enough to count as progress."""
        self._received += n_bytes
        if self._received > MIN_RATE * (time.monotonic() - self._since):
            self._renew()

    def failed(self, error: Exception) -> None:
        """Sleep until the next try is due; raises the error's sentence when it is final or patience would end meanwhile."""
        self._mismatches += isinstance(error, Mismatch)
        if not is_transient(error) or self._mismatches >= MISMATCHES:
            raise explain(error, self._place) from error
        pause = max(self._pause, retry_after(error) or 0.0)
        limit = min(self._limit, FIRST_SECONDS) if self._first and is_silent(error) else self._limit
        if time.monotonic() - self._since + pause > limit:
            raise explain(error, self._place) from error
        if self._stop.wait(pause):
            raise Cancelled
        self._pause = min(LONGEST_PAUSE, 2 * self._pause)


def is_transient(error: Exception) -> bool:
    """Return whether the same request may work later: the network, a busy server, a rate limit."""
    if isinstance(error, HfHubHTTPError):
        return error.response.status_code in BUSY
    final = (
        httpx2.UnsupportedProtocol
        | httpx2.TooManyRedirects
        | httpx2.DecodingError
        | httpx2.LocalProtocolError
    )
    if isinstance(error, final) or cause_of(error, ssl.SSLCertVerificationError) or speaks_no_tls(error):
        return False
    if isinstance(error, httpx2.ProxyError):
        return not str(error).startswith("4")  # 407 and 403 stay
    return isinstance(error, httpx2.TransportError)


def is_silent(error: Exception) -> bool:
    """Return whether no answer came at all."""
    return isinstance(error, httpx2.TransportError)


def seconds() -> float:
    """Return how long to keep trying without progress. Raises UsageError for a MIXCLI_PATIENCE that is not a time."""
    text = os.environ.get("MIXCLI_PATIENCE", "").strip()
    try:
        limit = float(text) if text else SECONDS
    except ValueError:
        limit = math.nan
    if not 0 <= limit < math.inf:
        raise UsageError(f"MIXCLI_PATIENCE={text[:40]!r} is not a number of seconds; use one such as 120")
    return limit
