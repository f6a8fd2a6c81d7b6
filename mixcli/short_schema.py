"""A JSON schema in the few words that a person types: 'name, age int, tags [string], kind (a|b)'.

    fields   field, field ...          commas or line breaks between them
    field    name? type : description  all but the name may be left out; "?" says that the field may be missing
    type     string (also str, and when nothing is said) · int · float · bool · date
             [type] a list · (a|b|c) one of these texts · {fields} an object

A text that begins with "[" is a list at the top; one that is a JSON object is a whole schema and is taken as it is.
The short form is an idea of Simon Willison's `llm`, widened by lists, choices and objects.
"""

import json
import re
from typing import Any

from mixcli.errors import UsageError

Schema = dict[str, Any]

TYPES: dict[str, Schema] = {
    "string": {"type": "string"},
    "str": {"type": "string"},
    "int": {"type": "integer"},
    "integer": {"type": "integer"},
    "float": {"type": "number"},
    "number": {"type": "number"},
    "bool": {"type": "boolean"},
    "boolean": {"type": "boolean"},
    "date": {"type": "string", "format": "date"},
}
MAX_DEPTH = 16
_NAME = re.compile(r"\w[\w.-]*")
_BLANK = re.compile(r"[ \t\r]*")
_BREAK = re.compile(r"[\s,]*[,\n][\s,]*")
_DESCRIPTION = re.compile(r"[^,\n{}\[\]]*")
_LABEL = re.compile(r"[^|()\n]+")


def schema_of(text: str) -> Schema:
    """Give the JSON schema that `text` means, short or whole. Raises UsageError, which says where it cannot be read."""
    if text.lstrip().startswith("{"):
        return _whole(text)
    reader = _Reader(text.strip())
    schema = reader.type(0) if reader.at("[") else reader.fields(0)
    if not reader.is_done:
        raise reader.error("the end or a comma")
    return schema


def _whole(text: str) -> Schema:
    try:
        schema = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise UsageError(
            f"the schema begins like JSON and is none: {error}; the short form needs no outer braces"
        ) from None
    assert isinstance(schema, dict)  # it begins with a brace
    return schema


class _Reader:
    """Reads a short schema from left to right."""

    def __init__(self, text: str) -> None:
        self._text = text
        self._at = 0

    @property
    def is_done(self) -> bool:
        return self._at == len(self._text)

    def at(self, sign: str) -> bool:
        return self._text.startswith(sign, self._at)

    def error(self, wanted: str) -> UsageError:
        before, after = self._text[: self._at][-20:], self._text[self._at :][:20]
        return UsageError(
            f"the schema cannot be read after {before!r}: expected {wanted}, found {after!r}; "
            "write it as 'name, age int, tags [string], kind (a|b)'"
        )

    def fields(self, depth: int) -> Schema:
        """Read fields up to a closing brace or the end."""
        properties: dict[str, Schema] = {}
        required: list[str] = []
        while True:
            name = self._take(_NAME, "the name of a field")
            if name in properties:
                raise UsageError(f"the schema has two fields {name!r}")
            if self._skip("?") is None:
                required.append(name)
            schema = self.type(depth)
            if self._skip(":") is not None:
                said = self._match(_DESCRIPTION).strip()
                schema = {**schema, "description": said} if said else schema
            properties[name] = schema
            self._match(_BLANK)
            if not self._match(_BREAK) or self.is_done or self.at("}"):
                break
        return {
            "type": "object",
            "properties": properties,
            "required": required,
            "additionalProperties": False,
        }

    def type(self, depth: int) -> Schema:
        """Read a type; a text where none is said."""
        if depth > MAX_DEPTH:
            raise UsageError(f"the schema is more than {MAX_DEPTH} levels deep")
        self._match(_BLANK)
        if self._skip("[") is not None:
            items = self.type(depth + 1)
            self._close("]")
            return {"type": "array", "items": items}
        if self._skip("(") is not None:
            labels = [self._label()]
            while self._skip("|") is not None:
                labels.append(self._label())
            self._close(")")
            return {"type": "string", "enum": list(dict.fromkeys(labels))}
        if self._skip("{") is not None:
            self._match(_BREAK)
            schema = self.fields(depth + 1)
            self._close("}")
            return schema
        if not _NAME.match(self._text, self._at):
            return dict(TYPES["string"])
        word = self._take(_NAME, "a type")
        if word.lower() not in TYPES:
            raise UsageError(
                f"the schema's type {word!r} is none of {', '.join(TYPES)}; "
                "lists are [int], choices (a|b), objects {name, age int}"
            )
        return dict(TYPES[word.lower()])

    def _label(self) -> str:
        label = self._take(_LABEL, "a text").strip()
        if not label:
            raise self.error("a text to choose")
        return label

    def _close(self, sign: str) -> None:
        self._match(_BLANK)
        while self.at("\n"):
            self._at += 1
            self._match(_BLANK)
        if self._skip(sign) is None:
            raise self.error(f"{sign!r}")

    def _skip(self, sign: str) -> str | None:
        """Step over a sign, and the blanks before it, where it stands next."""
        at = _BLANK.match(self._text, self._at)
        end = at.end() if at else self._at
        if not self._text.startswith(sign, end):
            return None
        self._at = end + len(sign)
        return sign

    def _take(self, what: re.Pattern[str], wanted: str) -> str:
        self._match(_BLANK)
        found = self._match(what)
        if not found:
            raise self.error(wanted)
        return found

    def _match(self, what: re.Pattern[str]) -> str:
        match = what.match(self._text, self._at)
        if match is None:
            return ""
        self._at = match.end()
        return match.group()


__all__ = ["TYPES", "schema_of"]
