"""Interpret HTTP error statuses: which error they are, and whether and when to retry."""

import json
import math
import time
from typing import NoReturn
from urllib.parse import urlsplit

from mixcli.client.events import Response, body_of
from mixcli.errors import Busy, NotReachable, UsageError
from mixcli.host.protocol.errors import ErrorBody, error_in, raise_error

BUSY = (429, 502, 503, 504, 529)  # it helps to wait; 529 is what some write for "overloaded"
NO_USE = ("insufficient_quota", "billing_hard_limit_reached")  # codes of a 429 that no waiting mends
MAX_REFUSAL, MAX_SECONDS = 1 << 16, 30.0  # bytes that are read of a refusal, and seconds for it
MIN_WAIT, WAIT, MAX_WAIT = 0.1, 1.0, 60.0  # seconds: at least, when nothing is said, at most at a time


def refuse(response: Response) -> NoReturn:
    """Raise what a refusal says: its own error where it has one, else its status."""
    status = response.status
    if status < 400:
        raise UsageError(
            f"the server returned {status}: redirect to {_place(response.getheader('Location'))}; use that address"
        )
    raw = body_of(response, MAX_REFUSAL, MAX_SECONDS)
    try:
        found = error_in(json.loads(raw.decode("utf-8", "replace")), refused=True)
    except (ValueError, RecursionError):
        found = None
    error = found or ErrorBody(f"the server returned {status} {response.reason}{_words(raw, response)}")
    if status == 429 and {error.code, error.type} & set(NO_USE):
        raise NotReachable(error.message)
    if status in BUSY:
        wait = response.getheader("Retry-After-Ms")
        raise Busy(
            error.message,
            seconds_of(response.getheader("Retry-After")) if wait is None else seconds_of(wait, 1e-3),
        )
    raise_error(error, status)


def seconds_of(text: str | None, unit: float = 1.0) -> float:
    """Return the seconds of a Retry-After: a number or a date, at least MIN_WAIT and at most MAX_WAIT."""
    said = (text or "").strip()
    try:
        seconds = float(said) * unit
    except ValueError:
        import email.utils  # dates are rare, and this takes long to import

        try:
            seconds = email.utils.parsedate_to_datetime(said).timestamp() - time.time()
        except (ValueError, TypeError, OverflowError):
            return WAIT
    return WAIT if math.isnan(seconds) else min(max(seconds, MIN_WAIT), MAX_WAIT)


def _place(location: str | None) -> str:
    """Return where a redirection leads, without what may be secret in it."""
    try:
        parts = urlsplit(location or "")
        return (
            f"{parts.scheme}://{parts.hostname}{f':{parts.port}' if parts.port else ''}{parts.path}"
            if parts.hostname
            else parts.path or "another address"
        )
    except ValueError:
        return "another address"


def _words(raw: bytes, response: Response) -> str:
    """Return the first line of a refusal that is not JSON; of a page for people there is nothing to quote."""
    if "html" in (response.getheader("Content-Type") or "").lower() or raw.lstrip()[:1] == b"<":
        return ", with a web page"
    words = raw.decode("utf-8", "replace").strip().splitlines()[:1]
    return f": {' '.join(words)[:200]}" if words else ""


__all__ = ["BUSY", "refuse", "seconds_of"]
