"""What an answer must look like, checked before anything is compiled: JSON schema, any JSON object, regex, or grammar.

Schemas and grammars come from outside and can be made to cost (deep nesting, huge counts, references to other hosts), so
their size is limited here; what they cost beyond that is limited in constraint.py. Nothing is ever fetched.
"""

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, Literal, get_args

from mixcli.errors import BadRequest

Kind = Literal["json_schema", "json_object", "regex", "grammar"]

MAX_BYTES = 1 << 16
MAX_DEPTH = 64  # containers in containers
MAX_COUNT = 10_000  # repeats in a regex or grammar, lengths and counts in a schema
_COUNTS = frozenset(f"{end}{what}" for end in ("min", "max") for what in ("Length", "Items", "Properties"))
_REPEAT = re.compile(r"\{\s*(\d*)\s*(?:,\s*(\d*)\s*)?\}|~\s*(\d+)(?:\s*\.\.\s*(\d+))?")


@dataclass(frozen=True)
class ConstraintSpec:
    """A checked constraint, usable as a key: `text` is a schema's JSON (its order kept), a regex, a grammar, or empty.

    `param` is the request's field that it came from, for errors.
    """

    kind: Kind
    text: str = ""
    param: str = field(default="structured_outputs", compare=False)

    @classmethod
    def of(cls, kind: Kind, value: object = "", *, param: str = "structured_outputs") -> "ConstraintSpec":
        """Check a constraint: a schema is what JSON parsed to (an object or a bool), the others are texts.

        Raises BadRequest that names `param`.
        """
        if kind not in get_args(Kind):
            raise BadRequest(f"{kind!r:.40} is none of {', '.join(get_args(Kind))}", param=param)
        if kind == "json_object":
            return cls(kind, "", param)
        name = kind.replace("_", " ")
        text = _schema_text(value, param) if kind == "json_schema" else _text(value, name, param)
        try:
            size = len(text.encode())
        except UnicodeEncodeError:
            raise BadRequest(
                f"the {name} has half a character (a lone surrogate) in it", param=param
            ) from None
        if size > MAX_BYTES:
            raise BadRequest(f"the {name} has {size:,} bytes; {MAX_BYTES:,} is the limit", param=param)
        if kind != "json_schema":
            _check_repeats(text, name, param)
        return cls(kind, text, param)


def _text(value: object, name: str, param: str) -> str:
    if not isinstance(value, str) or not value.strip():
        raise BadRequest(f"the {name} must be a text that is not empty, not {value!r:.40}", param=param)
    if "\0" in value:
        raise BadRequest(f"the {name} has a NUL character in it; write it as an escape", param=param)
    return value


def _check_repeats(text: str, name: str, param: str) -> None:
    for match in _REPEAT.finditer(text):
        for digits in filter(None, match.groups()):
            if len(digits) > len(str(MAX_COUNT)) or int(digits) > MAX_COUNT:
                raise BadRequest(
                    f"the {name} repeats something {digits:.20} times; {MAX_COUNT:,} is the limit",
                    param=param,
                )


def _schema_text(schema: object, param: str) -> str:
    if not isinstance(schema, dict | bool):
        raise BadRequest(f"a JSON schema must be an object, not {schema!r:.40}", param=param)
    for key, value in _members(schema, param):
        if key in ("$ref", "$dynamicRef", "$recursiveRef") and not str(value).startswith("#"):
            raise BadRequest(
                f"the JSON schema refers to {value!r:.80}; only references inside it (#/...) are followed",
                param=param,
            )
        if key in _COUNTS and isinstance(value, int | float) and value > MAX_COUNT:
            raise BadRequest(f"the JSON schema's {key} is {value:g}; {MAX_COUNT:,} is the limit", param=param)
        if key == "pattern" and isinstance(value, str):
            _check_repeats(value, "JSON schema's pattern", param)
    try:
        return json.dumps(schema, ensure_ascii=False, allow_nan=False, separators=(",", ":"))
    except (TypeError, ValueError) as error:
        raise BadRequest(f"the JSON schema is no JSON: {error}", param=param) from None


def _members(schema: object, param: str) -> Iterator[tuple[str, Any]]:
    """Walk over every key and value, however deep, without recursion. Raises BadRequest where it is too deep."""
    todo: list[tuple[object, int]] = [(schema, 1)]
    while todo:
        node, depth = todo.pop()
        if depth > MAX_DEPTH:
            raise BadRequest(f"the JSON schema is more than {MAX_DEPTH} levels deep", param=param)
        if isinstance(node, dict):
            yield from node.items()
            children: list[object] = list(node.values())
        else:
            children = list(node) if isinstance(node, list | tuple) else []
        todo += [(child, depth + 1) for child in children if isinstance(child, dict | list | tuple)]


__all__ = ["MAX_BYTES", "MAX_COUNT", "MAX_DEPTH", "ConstraintSpec", "Kind"]
