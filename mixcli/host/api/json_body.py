"""Parse a request body as strict JSON; every fault is a BadRequest that names the field.

Python's parser takes more than JSON is: NaN and Infinity, duplicate keys, lone surrogates, numbers of any length.
Each would be misread in silence, or fail later in a place that no longer knows the field.
"""

import asyncio
import contextlib
import json
import math
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any, TypeVar

from fastapi import Request
from pydantic import BaseModel, ValidationError

from mixcli.errors import BadRequest
from mixcli.host.api.field_rules import FieldFault
from mixcli.host.api.wire_model import WireModel, as_sent
from mixcli.system.json_parts import fault_of
from mixcli.system.python_words import validation_text

LARGE = 1 << 16  # bytes of a body that are worth a thread
REFUSALS = {
    "unknown_parameter",
    "unsupported_parameter",
    "unsupported_value",
}  # codes of sentences that name the field
MAX_DIGITS = 40  # of a whole number; no field needs more
_HALF = re.compile(rb"\\u[dD][89a-fA-F]")  # may be a lone surrogate
_LONE = re.compile("[\ud800-\udfff]")
_BRACKETS = re.compile(rb'"(?:[^"\\]|\\.)*"|[\[\]{}]', re.DOTALL)

Path = tuple[str | int, ...]
Made = TypeVar("Made")
T = TypeVar("T", bound=BaseModel)


class _Repeated(dict[str, Any]):
    """An object with a key that is there twice."""

    key = ""


class _Long(float):
    """A whole number of more digits than a field may have."""

    n_digits = 0


class _Reader:
    """Parses once; `suspicious` is set where something may have to be refused by its path."""

    def __init__(self) -> None:
        self.suspicious = False

    def loads(self, text: str) -> Any:
        return json.loads(
            text,
            parse_constant=self._constant,
            parse_float=self._float,
            parse_int=self._int,
            object_pairs_hook=self._object,
        )

    def _constant(self, text: str) -> float:
        self.suspicious = True
        return float(text)

    def _float(self, text: str) -> float:
        value = float(text)
        self.suspicious = self.suspicious or math.isinf(value)
        return value

    def _int(self, text: str) -> int | float:
        if len(text) <= MAX_DIGITS:
            return int(text)
        self.suspicious = True
        number = _Long(math.inf)
        number.n_digits = len(text.lstrip("-"))
        return number

    def _object(self, pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        value = dict(pairs)
        if len(value) == len(pairs):
            return value
        self.suspicious = True
        repeated = _Repeated(value)
        seen: set[str] = set()
        repeated.key = next(key for key, _ in pairs if key in seen or seen.add(key))  # type: ignore[func-returns-value]
        return repeated


async def read(http: Request, make: Callable[[bytes], Made]) -> Made:
    """Read a request's body and make something of it; of a large one in a thread, so that the streams of others continue."""
    raw = await http.body()
    return await asyncio.to_thread(make, raw) if len(raw) > LARGE else make(raw)


def load(raw: bytes, param: str = "body") -> Any:
    """Parse JSON; BadRequest names the field, as a path below `param` where that is not the body."""
    if fault := fault_of(raw, param):
        raise BadRequest(fault, param=param)
    reader = _Reader()
    try:
        value = reader.loads(raw.decode("utf-8-sig"))
    except UnicodeDecodeError as error:
        raise BadRequest(f"{param} is not UTF-8: byte {error.start:,}", param=param) from None
    except RecursionError:
        field = _deepest_field(raw) if param == "body" else param
        raise BadRequest(f"{field} is nested too deeply", param=field) from None
    except ValueError as error:
        raise BadRequest(f"{param} is not JSON: {error}", param=param) from None
    if reader.suspicious or _HALF.search(raw):
        for path, fault in _faults(value):
            field = dotted(path if param == "body" else (param, *path))
            raise BadRequest(f"{field}: {fault}", param=field)
    return value


def parsed(cls: type[T], raw: bytes) -> T:
    """Read a body as one of the request models; BadRequest names the field."""
    return validated(cls, load(raw))


def validated(cls: type[T], value: Any) -> T:
    """Read parsed JSON as one of the request models; null counts as left out. BadRequest names the field."""
    if not isinstance(value, dict):
        raise BadRequest("body must be a JSON object", param="body")
    said = {name: one for name, one in value.items() if one is not None}
    try:
        return cls.model_validate(said)
    except ValidationError as error:
        raise _bad_request(cls, said, error) from None


def _bad_request(cls: type[BaseModel], body: dict[str, Any], error: ValidationError) -> BadRequest:
    """Return the error for the field that is wrong, by the name that the client used."""
    sent: Mapping[str, str] = {}
    if issubclass(cls, WireModel):
        with contextlib.suppress(FieldFault):
            found = cls.read_fields(body)
            body, sent = dict(found.fields), found.sent
    faults = [_fault(one, body) for one in _first(error)]
    deepest = max(faults, key=lambda one: len(one[0]))
    # of the branches of a union, the one whose type the value has tells more than one of another type
    same = (one for one in faults if one[0] == deepest[0] and one[1] != "invalid_type")
    path, code, message = next(same, deepest)
    field = dotted(path)
    sentence = message if code in REFUSALS else f"{field}: {message}"
    return as_sent(BadRequest(sentence, param=field, code=code), sent)


def dotted(path: Path) -> str:
    """Return a path as people write it: messages.0.content."""
    return ".".join(str(part)[:80].encode("utf-8", "replace").decode() for part in path) or "body"


def _first(error: ValidationError) -> Iterator[Mapping[str, Any]]:
    yield from error.errors(include_url=False)[:16]


def _fault(found: Mapping[str, Any], body: Any) -> tuple[Path, str, str]:
    """Return where an error is, OpenAI's code for it, and what is wrong."""
    kind, context = found["type"], found.get("ctx", {})
    if "field" in context:  # by a FieldRule
        path = _field(found["loc"], body, missing=False)
        if path and not isinstance(
            _at(path, body), dict
        ):  # not a field but the tag of a union, named like one
            path = path[:-1]
        return (*path, context["field"]), kind, context["message"]
    path = _field(found["loc"], body, missing=kind == "missing")
    if kind == "missing":
        return path, "missing_required_parameter", validation_text(found)
    is_other_type = kind.endswith("_type") or (
        kind == "literal_error" and not isinstance(found["input"], str)
    )
    return path, "invalid_type" if is_other_type else "invalid_value", validation_text(found)


def _field(location: Path, body: Any, missing: bool) -> Path:
    """Return where an error is in the body; pydantic's own names for the branches of a union are left out."""
    path: list[str | int] = []
    for i, part in enumerate(location):
        try:
            body = body[part]
        except (LookupError, TypeError):
            if not (missing and i == len(location) - 1):
                continue
        path.append(part)
    return tuple(path)


def _at(path: Path, body: Any) -> Any:
    for part in path:
        body = body[part]
    return body


def _faults(value: Any) -> Iterator[tuple[Path, str]]:
    """Walk over a value, however deep, and yield what no field may hold; a list of millions of numbers is not copied for it."""
    todo: list[Iterator[tuple[Path, Any]]] = [iter([((), value)])]
    while todo:
        path, node = next(todo[-1], (None, None))
        if path is None:
            todo.pop()
        elif isinstance(node, _Long):
            yield path, f"a whole number of {node.n_digits:,} digits is too large"
        elif isinstance(node, float) and not math.isfinite(node):
            yield path, "NaN, infinity and numbers beyond 1.8e308 are not valid JSON numbers"
        elif isinstance(node, str) and _LONE.search(node):
            yield path, "contains a lone surrogate"
        elif isinstance(node, dict):
            if isinstance(node, _Repeated):
                yield (*path, node.key), "duplicate key"
            if any(_LONE.search(key) for key in node):
                yield path, "a key contains a lone surrogate"
            todo.append(_children(path, node.items()))
        elif isinstance(node, list):
            todo.append(_children(path, enumerate(node)))


def _children(path: Path, items: Iterable[tuple[str | int, Any]]) -> Iterator[tuple[Path, Any]]:
    """Yield the values in a container, each with its path, that may be wrong."""
    for step, value in items:
        if isinstance(value, str | float | dict | list):
            yield (*path, step), value


def _deepest_field(raw: bytes) -> str:
    """Return the key of the outermost object under which brackets go deeper than Python reads."""
    depth, key = 0, b""
    for match in _BRACKETS.finditer(raw):
        sign = match[0]
        if sign in (b"{", b"["):
            depth += 1
            if depth > 400:
                break
        elif sign in (b"}", b"]"):
            depth -= 1
        elif depth == 1:
            key = sign[1:-1]
    return key.decode("utf-8", "replace")[:80] or "body"


__all__ = ["dotted", "load", "parsed", "read", "validated"]
