"""Tool calls and results as JSON text, written as Mistral's reference and Python write it."""

import hashlib
import json
import re
from typing import Any

_NINE = re.compile(r"[a-zA-Z0-9]{9}")
_DIGITS = "0123456789abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ"
MAX_DEPTH = 100  # of a value that is read; it is written again, and mapped, level by level


def dumped(value: object) -> str:
    """Return JSON on one line, not escaped beyond what JSON asks for."""
    return json.dumps(value, ensure_ascii=False)


def value_of(text: str) -> Any:
    """Return what a JSON text means; a text that is not JSON, or nested too deep to be written again, means itself."""
    try:
        value = json.loads(text)
    except (ValueError, RecursionError):
        return text
    return value if text.count("[") + text.count("{") <= MAX_DEPTH or not _is_deep(value) else text


def _is_deep(value: Any) -> bool:
    level = [value]
    for _ in range(MAX_DEPTH):
        level = [
            inner
            for one in level
            if isinstance(one, dict | list)
            for inner in (one.values() if isinstance(one, dict) else one)
        ]
    return bool(level)


def arguments_of(text: str) -> Any:
    """Return a call's arguments as a value; none is an empty object."""
    return value_of(text or "{}")


def nine(call_id: str) -> str:
    """Return a call's id as nine letters and digits: itself where it is that, else always the same other one."""
    if _NINE.fullmatch(call_id):
        return call_id
    number = int.from_bytes(hashlib.sha256(call_id.encode("utf-8", "surrogatepass")).digest())
    digits = ""
    for _ in range(9):
        number, digit = divmod(number, len(_DIGITS))
        digits += _DIGITS[digit]
    return digits
