"""Parse the short form of a JSON schema: 'name, age int, tags [string], kind (a|b)'.

    fields   field, field ...          commas or line breaks between them
    field    name? type : description  all but the name may be left out; "?" says that the field may be missing
             name: type : description  the same, as Python and TypeScript write it
    type     string (also str, and when nothing is said) · int · float · bool · date · datetime
             [type] a list, also type[] and list[type] · (a|b|c) one of these texts · 1..5 a whole number · {fields} an object

After "name:" stands a type or a description. What could be either ("born: date of birth", "age: integr") is refused.

A text that begins with "[" is a list at the top; one that is a JSON object is a whole schema and is taken as it is, without the
wrappers that OpenAI's API puts around it ({name, strict, schema}, {type: json_schema, json_schema}).
The short form is an idea of Simon Willison's `llm`, widened by lists, choices and objects.
"""

import re
from typing import Any

from mixcli.errors import UsageError
from mixcli.request.choice_labels import in_quotes
from mixcli.system import strict_json
from mixcli.system.text import first_repeated, nearest

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
    "double": {"type": "number"},
    "datetime": {"type": "string", "format": "date-time"},
}
NOTHING = ("null", "none", "undefined")  # beside a type, in other languages
LISTS = ("list", "array")  # list[int] is [int]
# what says something about the value itself; a schema has one of these, a wrapper around one has none
# fmt: off
KEYWORDS = frozenset((
    "type", "properties", "required", "additionalProperties", "patternProperties", "propertyNames", "items", "prefixItems", "contains",
    "enum", "const", "anyOf", "oneOf", "allOf", "not", "if", "$ref", "$defs", "definitions", "pattern", "format", "minimum", "maximum",
    "exclusiveMinimum", "exclusiveMaximum", "multipleOf", "minLength", "maxLength", "minItems", "maxItems",
))
# fmt: on
# where APIs put a schema: OpenAI's response_format and tools, Anthropic's tools
WRAPPERS = ("json_schema", "schema", "response_format", "format", "function", "parameters", "input_schema")
MAX_DEPTH = 16
_NAME = re.compile(r"\w[\w.-]*")
_BLANK = re.compile(r"[ \t\r]*")
_BREAK = re.compile(r"[\s,]*[,\n][\s,]*")
_DESCRIPTION = re.compile(r"[^,\n{}\[\]]*")
_RANGE = re.compile(r"(-?\d{1,15})\.\.(-?\d{1,15})(?![\w.])")
_OPENS_TYPE = re.compile(
    rf"[\[{{]|\([^()\n]*\||\w+\[|{_RANGE.pattern}"
)  # a list, an object, choices, list[...], a range
_LITERAL = re.compile(r"true|false|null|-?\d+(\.\d+)?")
_LABEL = re.compile(r"[^|()\n]+")


def schema_of(text: str) -> Schema:
    """Return the JSON schema that `text` means, short or whole. Raises UsageError, which says where it cannot be read."""
    if text.lstrip().startswith("{"):
        return _whole(text)
    if _LITERAL.fullmatch(text.strip()):  # what jq prints for a missing schema
        raise UsageError(
            f"the schema is {text.strip()}, which describes no value; write fields such as 'name, age int', or a JSON schema with a type or properties"
        )
    reader = _Reader(text.strip())
    schema = reader.type(0) if reader.at("[") else reader.fields(0)
    if not reader.is_done:
        raise reader.error("the end or a comma")
    return schema


def _whole(text: str) -> Schema:
    try:
        schema = strict_json.loads(text)
    except ValueError as error:
        raise UsageError(
            f"the schema begins like JSON and is not JSON: {error}; the short form needs no outer braces"
        ) from None
    schema = _unwrapped(schema)
    if not KEYWORDS & set(schema):
        raise UsageError(
            f"the schema does not describe a value: it has only {', '.join(map(repr, schema))[:200] or 'braces'}; "
            "a JSON schema has a type or properties, and the short form needs no outer braces: 'name, age int'"
        )
    return schema


def _unwrapped(schema: Schema) -> Schema:
    """Return the schema inside of the wrappers of an API; a schema's own properties of such names are left alone."""
    for _ in range(len(WRAPPERS)):
        inner = next((schema[name] for name in WRAPPERS if isinstance(schema.get(name), dict)), None)
        is_wrapper = schema.get("type") in ("json_schema", "function") or not KEYWORDS - {"format"} & set(
            schema
        )
        if inner is None or not is_wrapper:
            break
        schema = inner
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
        place = f" after {before!r}" if before else ""
        return UsageError(
            f"the schema cannot be read{place}: expected {wanted}, found {repr(after) if after else 'its end'}; "
            "write it as 'name, age int, tags [string], kind (a|b)'"
        )

    def fields(self, depth: int) -> Schema:
        """Read fields up to a closing brace or the end."""
        properties: dict[str, Schema] = {}
        required: list[str] = []
        while True:
            name, schema, is_required = self._field(depth)
            if name in properties:
                raise UsageError(f"the schema has two fields {name!r}")
            properties[name] = schema
            required += [name] * is_required
            self._match(_BLANK)
            if not self._match(_BREAK) or self.is_done or self.at("}"):
                break
        return {
            "type": "object",
            "properties": properties,
            "required": required,
            "additionalProperties": False,
        }

    def _field(self, depth: int) -> tuple[str, Schema, bool]:
        """Read one field; returns its name, its schema, and whether it must be there."""
        name = self._take(_NAME, "the name of a field")
        is_optional = self._skip("?") is not None
        began = self._at
        schema = self.type(depth)
        is_typed = bool(self._text[began : self._at].strip())
        is_optional |= is_typed and self._skip("?") is not None
        is_described = self._skip(":") is not None
        if is_described and not is_typed and self._type_follows(name):
            schema = self.type(depth)
            is_optional |= self._skip("?") is not None
            is_described = self._skip(":") is not None
        if is_described and (said := self._match(_DESCRIPTION).strip()):
            schema = {**schema, "description": said}
        return name, schema, not is_optional

    def _type_follows(self, name: str) -> bool:
        """Return whether a type stands after "name:", and not a description. Raises UsageError where it could be either."""
        self._match(_BLANK)
        if _OPENS_TYPE.match(self._text, self._at):
            return True
        said = _DESCRIPTION.match(self._text, self._at)
        head = said.group().partition(":")[0].strip().removesuffix("?").strip() if said else ""
        words = head.split()
        if not words or head.lower() in TYPES:
            return bool(words)
        if "|" in head:
            _check_labels([label.strip() for label in head.split("|")])
            raise UsageError(f"the schema's {head!r} must be in parentheses: {name} ({head})")
        if words[0].lower() in TYPES:
            raise UsageError(
                f"the schema's '{name}: {head}' begins with a type followed by other words; "
                f"write '{name} {words[0].lower()}: {' '.join(words[1:])}', or '{name} string: {head}' for a description"
            )
        if len(words) == 1 and _NAME.fullmatch(head):
            raise UsageError(f"{_unknown(head)}; write a description of one word as '{name} string: {head}'")
        return False

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
            _check_labels(labels)
            return {"type": "string", "enum": labels}
        if self._skip("{") is not None:
            self._match(_BREAK)
            schema = self.fields(depth + 1)
            self._close("}")
            return schema
        if found := _RANGE.match(self._text, self._at):
            self._at = found.end()
            return _whole_numbers(int(found[1]), int(found[2]))
        return self._word(depth)

    def _word(self, depth: int) -> Schema:
        """Read a type that is a word, and the [] after it; a text where there is none."""
        if not _NAME.match(self._text, self._at):
            return dict(TYPES["string"])
        word = self._take(_NAME, "a type").lower()
        if word in LISTS and self.at("["):
            return self.type(depth)
        if word not in TYPES:
            raise UsageError(f"{_unknown(word)}; lists are [int], choices (a|b), objects {{name, age int}}")
        schema = dict(TYPES[word])
        while self.at("[]") and depth < MAX_DEPTH:
            self._at, depth = self._at + 2, depth + 1
            schema = {"type": "array", "items": schema}
        return schema

    def _label(self) -> str:
        label = self._take(_LABEL, "a text").strip()
        if not label:
            raise self.error("a label to choose")
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


def _check_labels(labels: list[str]) -> None:
    """Refuse labels that other languages read as something else than these texts: in quotes, types, true and false; and one that is there twice."""
    written, words = "|".join(labels)[:80], {label.lower() for label in labels}
    if quoted := next(filter(in_quotes, labels), None):
        raise UsageError(
            f"the schema's label {quoted[:40]} has quotes, which would be part of it; write labels as (a|b)"
        )
    if words == {"true", "false"}:
        raise UsageError(f"the schema's ({written}) would be texts; write bool")
    if words & set(TYPES) and words <= {*TYPES, *NOTHING}:
        raise UsageError(
            f"the schema's ({written}) would be texts, not types; write a field that may be missing as 'name? string', or pass a JSON schema"
        )
    if (twice := first_repeated(labels)) is not None:
        raise UsageError(f"the schema has the label {twice!r} twice; remove one of them")


def _whole_numbers(low: int, high: int) -> Schema:
    if low > high:
        raise UsageError(f"the schema's range {low}..{high} is empty; write the smaller number first")
    return {"type": "integer", "minimum": low, "maximum": high}


def _unknown(word: str) -> str:
    near = nearest(word, TYPES)
    guess = f"; did you mean {near}?" if near else ""
    return f"the schema's type {word!r} is not one of {', '.join(TYPES)}{guess}"


__all__ = ["TYPES", "schema_of"]
