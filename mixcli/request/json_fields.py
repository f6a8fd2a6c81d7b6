"""The fields of a JSON answer: where each value stands in the text, by which name it is called, and how one is replaced."""

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass

Step = str | int
Path = tuple[Step, ...]

WHOLE = "answer"  # the name of an answer that is one value
MAX_DEPTH = 64  # containers in one another; what is deeper is one value
_BLANK = " \t\r\n"
_PLAIN = re.compile(r"""[^.\[\]"']+""")
_INDEX = re.compile(r"\[\d+\]")


@dataclass(frozen=True)
class JsonField:
    """A value without parts of its own (also an empty list or object), and the characters of the text that it takes, quotes included."""

    path: Path
    begin: int
    end: int
    value: object


def json_fields(text: str) -> list[JsonField]:
    """Return all fields of a JSON text in their order. Raises ValueError where it is not JSON."""
    found: list[JsonField] = []
    try:
        end = _walk(text, _after_blanks(text, 0), (), found)
    except (ValueError, IndexError, RecursionError):
        raise ValueError("the text is not JSON") from None
    if text[end:].strip(_BLANK):
        raise ValueError("the text is not one JSON value")
    return found


def parts(value: object, path: Path = ()) -> Iterator[tuple[Path, object]]:
    """Yield the fields of a parsed answer, as `json_fields` has them."""
    if isinstance(value, dict | list) and value and len(path) < MAX_DEPTH:
        for step, part in value.items() if isinstance(value, dict) else enumerate(value):
            yield from parts(part, (*path, step))
    else:
        yield path, value


def without(value: object, names: frozenset[str], path: Path = ()) -> object:
    """Return a copy of an answer in which the named fields are null."""
    if path_name(path) in names:
        return None
    if isinstance(value, dict):
        return {step: without(part, names, (*path, step)) for step, part in value.items()}
    if isinstance(value, list):
        return [without(part, names, (*path, step)) for step, part in enumerate(value)]
    return value


def path_name(path: Path) -> str:
    """Return the name of a field as placeholders have it: meta.user, tags[0], meta["v1.2"]."""
    name = ""
    for step in path:
        if isinstance(step, int):
            name += f"[{step}]"
        elif _PLAIN.fullmatch(step):
            name += f".{step}" if name else step
        else:
            name += f"[{json.dumps(step, ensure_ascii=False)}]"
    return name or WHOLE


def any_index(name: str) -> str:
    """Return the name that all parts of a list have in common: tags[] for tags[0]."""
    return _INDEX.sub("[]", name)


def value_text(value: object) -> str:
    """Return a value as people write it: a text without quotes, all else as JSON."""
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)


_scan = json.JSONDecoder().raw_decode


def _walk(text: str, at: int, path: Path, found: list[JsonField]) -> int:
    """Note the fields of the value that begins at `at`; return where it ends."""
    sign = text[at]
    closing = {"{": "}", "[": "]"}.get(sign)
    first = _after_blanks(text, at + 1)
    if closing is None or len(path) >= MAX_DEPTH or text[first] == closing:
        value, end = _scan(text, at)
        found.append(JsonField(path, at, end, value))
        return end
    at, n = first, 0
    while True:
        step: Step = n
        if sign == "{":
            step, at = _scan(text, at)
            if not isinstance(step, str):
                raise ValueError
            at = _after(text, at, ":")
        at = _after_blanks(text, _walk(text, at, (*path, step), found))
        if text[at] == closing:
            return at + 1
        at = _after(text, at, ",")
        n += 1


def _after(text: str, at: int, sign: str) -> int:
    """Step over a sign and the blanks around it."""
    at = _after_blanks(text, at)
    if text[at] != sign:
        raise IndexError
    return _after_blanks(text, at + 1)


def _after_blanks(text: str, at: int) -> int:
    while at < len(text) and text[at] in _BLANK:
        at += 1
    return at
