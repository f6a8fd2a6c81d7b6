"""Format and parse numbers: sizes, durations, counts, addresses."""

import math
import re
from datetime import datetime

from mixcli.errors import UsageError
from quantize.wording import counted as counted  # noqa: PLC0414  (one for all rooms)

MAX_SIZE = 1 << 60  # bytes
MIN_BARE_SIZE = 1 << 20  # bytes: who writes 24 without a unit does not mean 24 bytes
UNITS = {"s": 1, "m": 60, "h": 3600, "d": 86400}


def format_bytes(n_bytes: float) -> str:
    """Return bytes as GB, MB or kB, decimal, as for disks and downloads."""
    for unit, scale in (("GB", 1e9), ("MB", 1e6), ("kB", 1e3)):
        if n_bytes >= scale:
            return f"{n_bytes / scale:.1f} {unit}"
    return f"{n_bytes:.0f} B"


def count(n: int) -> str:
    """Return a parameter count as people write it: 46.7B, 135M."""
    for unit, scale in (("B", 1e9), ("M", 1e6), ("K", 1e3)):
        if n >= scale:
            return f"{n / scale:.1f}{unit}" if n < 100 * scale else f"{n / scale:.0f}{unit}"
    return str(n)


def about_time(seconds: float) -> str:
    """Return an estimate of a time in words: about 40 s, about 12 min, about 3 h."""
    for unit, scale in (("h", 3600), ("min", 60)):
        if seconds >= 1.5 * scale:
            return f"about {seconds / scale:.0f} {unit}"
    return f"about {max(1, round(seconds))} s"


def moment(iso: str) -> str:
    """Return a stored moment, ISO 8601 with its offset, in the time zone of this machine, to the minute; "unknown" for other words."""
    try:
        return f"{datetime.fromisoformat(iso).astimezone():%Y-%m-%d %H:%M}"
    except (ValueError, OverflowError):
        return "unknown"


def size_in_bytes(text: str) -> int:
    """Return the bytes of a size such as 2GiB, 500MB, 4G or 0; UsageError when it is invalid. G and GiB are 2^30, GB is 10^9.

    A number without a unit is bytes; a small one is refused, because its unit was forgotten.
    """
    match = re.fullmatch(r"([0-9]{1,18}(?:\.[0-9]{1,18})?)\s*([KMGT]?)(i?B?)", text.strip(), re.IGNORECASE)
    if not match:
        raise UsageError(f"invalid size {_short(text)}: use 2GiB, 500MB or 0")
    step = 1000 if match[3].upper() == "B" else 1024
    n_bytes = int(float(match[1]) * step ** " KMGT".index(match[2].upper() or " "))
    if not match[2] and not match[3] and 0 < n_bytes < MIN_BARE_SIZE:
        raise UsageError(
            f"invalid size {_short(text)}: a number without a unit is bytes; use {match[1]}GiB or {match[1]}MB"
        )
    if n_bytes > MAX_SIZE:
        raise UsageError(
            f"invalid size {_short(text)}: {MAX_SIZE >> 40:,}TiB is the limit; use 2GiB or 500MB"
        )
    return n_bytes


def _short(text: str) -> str:
    return repr(text if len(text) <= 60 else f"{text[:60]}…")


LONGEST = 100 * 365 * 24 * 3600  # seconds of a time


def parse_duration(text: str) -> float:
    """Parse a time such as 30s, 5m, 1h, 0 or -1 to seconds; UsageError if it is invalid."""
    number, unit = (text[:-1], text[-1]) if text[-1:] in UNITS else (text, "s")
    try:
        value = float(number) * UNITS[unit]
    except ValueError:
        value = math.nan
    if LONGEST < value < math.inf:
        raise UsageError(
            f"{text[:40]!r} is longer than {LONGEST // 3600:,} h, the limit; use -1 for no limit"
        )
    if value == -1 or 0 <= value < math.inf:
        return value
    raise UsageError(f"invalid time {text!r}: use 30s, 5m, 1h, 0 or -1")
