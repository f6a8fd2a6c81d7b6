"""Format numbers and values from files for messages."""

import errno
import json
from pathlib import Path

DISK_FULL = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}  # what a write raises where no more can be written


def counted(n: int, noun: str, plural: str = "") -> str:
    """Return a number with its noun: "1 byte", "2,048 bytes"."""
    return f"{n:,} {noun if n == 1 else plural or noun + 's'}"


def disk_full(folder: Path, missing: str) -> str:
    """Return the sentence on a disk that became full while a file was written that the same command can resume; `missing` has its unit."""
    return f"the disk of {folder} is full; {missing} more are needed and written data is kept: free some space and rerun the command"


def shown(value: object, limit: int = 40) -> str:
    """Return any value for an error message: a text in quotes and anything else as JSON has it, cut where it is long."""
    try:
        is_plain = isinstance(value, bool | int | float | list | tuple | dict | None)
        text = json.dumps(value, ensure_ascii=False, default=repr) if is_plain else repr(value)
    except (RecursionError, ValueError):
        text = "a deeply nested value"
    return text if len(text) <= limit else text[: limit - 3] + "..."


__all__ = ["DISK_FULL", "counted", "disk_full", "shown"]
