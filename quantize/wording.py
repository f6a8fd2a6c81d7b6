"""Format numbers and values from files for messages."""

import json


def counted(n: int, noun: str, plural: str = "") -> str:
    """Return a number with its noun: "1 byte", "2,048 bytes"."""
    return f"{n:,} {noun if n == 1 else plural or noun + 's'}"


def shown(value: object, limit: int = 40) -> str:
    """Return any value for an error message: a text in quotes and anything else as JSON has it, cut where it is long."""
    try:
        is_plain = isinstance(value, bool | int | float | list | tuple | dict | None)
        text = json.dumps(value, ensure_ascii=False, default=repr) if is_plain else repr(value)
    except (RecursionError, ValueError):
        text = "a deeply nested value"
    return text if len(text) <= limit else text[: limit - 3] + "..."


__all__ = ["counted", "shown"]
