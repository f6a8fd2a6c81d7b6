"""Read JSON as the standard has it, for files and answers whose meaning counts.

Python's parser takes more: the same name twice, of which the last value counts, NaN, and numbers that become infinite. What it refuses in
words of its own, such as a number of 5,000 digits, is said in ours.
"""

import json
import math
from collections.abc import Iterator
from typing import Any

from mixcli.system.text import first_repeated

MAX_DEPTH = 200  # containers in one another; Python reads about a thousand, and writes fewer where its stack is deep already
MAX_DIGITS = 4300  # of a whole number, as Python reads them


class Repeated(ValueError):
    """An object has one name twice: it could mean either value."""


def loads(text: str) -> Any:
    """Return the value of a JSON text; ValueError says what is wrong with it."""
    return decoded(_STRICT, text)


def decoded(decoder: json.JSONDecoder, text: str) -> Any:
    """Return what a decoder reads; ValueError also for a value that is too deep to be written again wherever that is."""
    try:
        value = decoder.decode(text)
    except RecursionError:
        raise ValueError("nested too deeply") from None
    if text.count("[") + text.count("{") > MAX_DEPTH and any(n > MAX_DEPTH for _, n in containers(value)):
        raise ValueError("nested too deeply")
    return value


def containers(value: object) -> Iterator[tuple[object, int]]:
    """Yield a value and all containers in it, each with its depth, from 1; does not recurse."""
    todo = [(value, 1)]
    while todo:
        node, depth = todo.pop()
        yield node, depth
        children = node.values() if isinstance(node, dict) else node if isinstance(node, list | tuple) else ()
        todo += [(child, depth + 1) for child in children if isinstance(child, dict | list | tuple)]


def unique(pairs: list[tuple[str, object]]) -> dict[str, object]:
    """Return an object; Repeated for a name that is there twice."""
    found = dict(pairs)
    if len(found) < len(pairs):
        raise Repeated(f"{first_repeated(name for name, _ in pairs)!r} is given twice")
    return found


def finite(text: str) -> float:
    """Return a number with a fraction or an exponent; ValueError for one that no float can hold."""
    if math.isinf(value := float(text)):
        raise ValueError(f"the number {text[:40]} is too large")
    return value


def whole(text: str) -> int:
    """Return a whole number; ValueError for one that is too long to be read."""
    if (n_digits := len(text.lstrip("-"))) > MAX_DIGITS:
        raise ValueError(f"a whole number of {n_digits:,} digits is too large")
    return int(text)


def _constant(name: str) -> float:
    raise ValueError(f"{name} is not a JSON number")


_STRICT = json.JSONDecoder(
    object_pairs_hook=unique, parse_float=finite, parse_int=whole, parse_constant=_constant
)

__all__ = ["Repeated", "containers", "decoded", "finite", "loads", "unique", "whole"]
