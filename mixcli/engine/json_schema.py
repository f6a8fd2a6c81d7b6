"""Prepare a JSON schema for llguidance: honor every keyword, drop it if it has no effect, or refuse it by name.

A schema that is `loose` need not be enforced whole: there such a keyword is dropped. An invalid schema is refused even so.

Drafts 4 to 2020-12. Annotations (title, default, examples, contentMediaType ...) are taken out: they allow and forbid nothing. What
constrains and cannot be held to while an answer is written (uniqueItems, not, if ...) is a BadRequest, never left out in silence; so is a
keyword that is only spelled wrongly (min_length). What has no effect in its place (`then` without `if`, `uniqueItems: false`) is taken out.
"""

import math
import re
from collections.abc import Callable
from typing import Any

from mixcli.engine.closed_objects import closed
from mixcli.engine.schema_references import without_repeated_type
from mixcli.errors import BadRequest
from mixcli.request.sampling_table import shown
from mixcli.request.schema_limits import MAX_DEPTH, containers

MAX_COUNT = 10_000  # lengths and counts
EXACT = 1 << 53  # whole numbers beyond it are rounded by llguidance, which counts in doubles

# possessive, as no part may end before it does: with blanks between the numbers the time would grow with the third power of their number
_REPEAT = re.compile(r"\{\s*+(\d*+)\s*+(?:,\s*+(\d*+)\s*+)?\}|~\s*+(\d++)(?:\s*+\.\.\s*+(\d++))?")
_BEYOND_REGULAR = re.compile(r"\(\?<?[=!]|(?<!\\)(?:\\\\)*\\[1-9k]")
_ONE = frozenset({"additionalItems", "additionalProperties", "items"})
_LIST = frozenset({"allOf", "anyOf", "oneOf", "prefixItems"})
_NAMED = frozenset({"properties", "patternProperties", "$defs", "definitions"})
_COUNTS = frozenset(f"{end}{what}" for end in ("min", "max") for what in ("Length", "Items", "Properties"))
_BOUNDS = frozenset({"minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum"})
_TEXTS = frozenset({"pattern", "format", "$ref", "$anchor", "$id", "id"})
_OTHERS = frozenset({"type", "enum", "const", "required", "multipleOf"})

# allow and forbid nothing; the last line is OpenAPI's, and JSON Schema's own bookkeeping
ANNOTATIONS = frozenset(
    {
        "title",
        "description",
        "default",
        "examples",
        "example",
        "$comment",
        "deprecated",
        "readOnly",
        "writeOnly",
    }
    | {"contentEncoding", "contentMediaType", "contentSchema", "$schema", "$vocabulary"}
    | {"$dynamicAnchor", "$recursiveAnchor", "discriminator", "externalDocs", "xml", "x-guidance"}
)
# formats by which programs say how a value is kept or shown; they limit no text
ANNOTATION_FORMATS = frozenset(
    {"int8", "int16", "int32", "int64", "uint8", "uint16", "uint32", "uint64", "float", "double", "decimal"}
    | {"byte", "binary", "base64", "base64url", "password", "char", "string", "text", "textarea", "html"}
    | {"commonmark", "markdown", "media-range", "sf-string"}
)
_EMPTY: tuple[object, ...] = (True, {})

# What constrains and cannot be held to, with what makes it harmless
REFUSED: dict[str, Callable[[dict[str, Any]], bool]] = {
    "not": lambda schema: schema["not"] is False,
    "if": lambda schema: "then" not in schema and "else" not in schema,
    "then": lambda schema: "if" not in schema,
    "else": lambda schema: "if" not in schema,
    "contains": lambda _: False,
    "minContains": lambda schema: "contains" not in schema,
    "maxContains": lambda schema: "contains" not in schema,
    "uniqueItems": lambda schema: schema["uniqueItems"] is False or schema.get("maxItems") in (0, 1),
    "propertyNames": lambda schema: schema["propertyNames"] in _EMPTY,
    "dependentRequired": lambda schema: schema["dependentRequired"] == {},
    "dependentSchemas": lambda schema: schema["dependentSchemas"] == {},
    "dependencies": lambda schema: schema["dependencies"] == {},
    "unevaluatedItems": lambda schema: schema["unevaluatedItems"] in _EMPTY,
    "unevaluatedProperties": lambda schema: schema["unevaluatedProperties"] in _EMPTY,
    "$dynamicRef": lambda _: False,
    "$recursiveRef": lambda _: False,
    "divisibleBy": lambda _: False,
    "disallow": lambda _: False,
    "extends": lambda _: False,
}
_KNOWN = _ONE | _LIST | _NAMED | _COUNTS | _BOUNDS | _TEXTS | _OTHERS | ANNOTATIONS | REFUSED.keys()
_SPELLED = {name.lower(): name for name in _KNOWN - ANNOTATIONS if name.isalpha()}
_SIMPLE = frozenset({"string", "number", "integer", "boolean", "null", "object", "array"})


class Unenforceable(BadRequest):
    """A valid schema that cannot be held to while an answer is written."""


def prepared(schema: object, param: str, *, loose: bool = False) -> object:
    """Return a schema that says the same to llguidance, where it is `loose` at most the same, and closes its objects.

    Raises BadRequest for `param` that names the keyword and its place, Unenforceable where the schema is valid.
    """
    check_depth(schema, param)
    return _Preparation(schema, param, loose=loose).schema(closed(schema), ())


def check_depth(value: object, param: str) -> None:
    """Raise BadRequest where containers lie deeper in one another than MAX_DEPTH; does not recurse."""
    for _, depth in containers(value):
        if depth > MAX_DEPTH:
            raise Unenforceable(
                f"the JSON schema is more than {MAX_DEPTH} levels deep; simplify it", param=param
            )


def check_repeats(text: str, name: str, param: str) -> None:
    """Raise BadRequest where a regex or grammar repeats something more often than MAX_COUNT."""
    for match in _REPEAT.finditer(text):
        for digits in filter(None, match.groups()):
            if len(digits) > len(str(MAX_COUNT)) or int(digits) > MAX_COUNT:
                raise Unenforceable(
                    f"the {name} has a repeat count of {digits:.20}; the limit is {MAX_COUNT:,}",
                    param=param,
                )


class _Preparation:
    """One walk over the places of a schema where schemas stand; what is in const, enum and default is data."""

    def __init__(self, root: object, param: str, *, loose: bool) -> None:
        self._root, self._param, self._loose = root, param, loose

    def schema(self, schema: object, path: tuple[str, ...]) -> object:
        if isinstance(schema, bool):
            return schema
        if not isinstance(schema, dict):
            raise self._error(path, f"must be a schema (an object), not {shown(schema)}")
        said = _newer(schema)
        made: dict[str, Any] = {}
        for key, value in said.items():
            place = (*path, str(key))
            if key in ANNOTATIONS or (key in REFUSED and REFUSED[key](said)) or _annotates(key, value, said):
                continue
            try:
                made[key] = self._value(key, value, place)
            except Unenforceable:
                if not self._loose:
                    raise
        return without_repeated_type(made, self._root)

    def _value(self, key: str, value: Any, place: tuple[str, ...]) -> Any:
        """Return a keyword's value: one or several schemas, or what a table of checks makes of it."""
        if key in REFUSED:
            raise self._beyond(place, "cannot be enforced during generation; remove it")
        if key in _NAMED:
            if not isinstance(value, dict):
                raise self._error(place, f"must be an object, not {shown(value)}")
            if key == "patternProperties":
                self._patterns(value, place)
            return {name: self.schema(one, (*place, name)) for name, one in value.items()}
        if key in _LIST or (key == "items" and isinstance(value, list)):
            if not isinstance(value, list):
                raise self._error(place, f"must be a list, not {shown(value)}")
            return [self.schema(one, (*place, str(i))) for i, one in enumerate(value)]
        if key in _ONE:
            return self.schema(value, place)
        for names, check in (
            (_COUNTS, self._count),
            (_BOUNDS, self._bound),
            (_TEXTS, self._text),
            (_OTHERS, self._other),
        ):
            if key in names:
                return check(value, place)
        return self._unknown(str(key), value, place)

    def _count(self, value: Any, place: tuple[str, ...]) -> int:
        whole = int(value) if isinstance(value, float) and value.is_integer() else value
        if isinstance(whole, bool) or not isinstance(whole, int) or whole < 0:
            raise self._error(place, f"must be a whole number of at least 0, not {shown(value)}")
        if whole > MAX_COUNT:
            raise self._beyond(place, f"is {shown(whole)}; the limit is {MAX_COUNT:,}")
        return whole

    def _bound(self, value: Any, place: tuple[str, ...]) -> int | float:
        """Return a bound as llguidance can hold it: one that a double cannot is moved inwards to the next that it can."""
        number = self._number(value, place)
        if isinstance(number, float) or abs(number) <= EXACT:
            return number
        try:
            rounded = float(number)
        except OverflowError:
            raise self._beyond(place, f"is {shown(number)}; it must be within 1.8e308") from None
        inwards = math.inf if place[-1] in ("minimum", "exclusiveMinimum") else -math.inf
        outside = rounded < number if inwards > 0 else rounded > number
        return math.nextafter(rounded, inwards) if outside else rounded

    def _number(self, value: Any, place: tuple[str, ...]) -> int | float:
        if isinstance(value, bool) or not isinstance(value, int | float):
            raise self._error(place, f"must be a number, not {shown(value)}")
        if isinstance(value, float) and not math.isfinite(value):
            raise self._error(place, f"is {value}, which is not valid JSON")
        return value

    def _text(self, value: Any, place: tuple[str, ...]) -> str:
        key = place[-1]
        if not isinstance(value, str):
            raise self._error(place, f"must be a string, not {shown(value)}")
        if key == "$ref" and not value.startswith("#"):
            raise Unenforceable(
                f"the JSON schema refers to {value!r:.80}; only references inside it (#/...) are followed",
                param=self._param,
            )
        if key == "pattern":
            self._pattern(value, place)
        return value

    def _pattern(self, pattern: str, place: tuple[str, ...]) -> None:
        check_repeats(pattern, "JSON schema's pattern", self._param)
        if _BEYOND_REGULAR.search(pattern):
            raise self._beyond(
                place, "has a look-around or a back-reference, which cannot be enforced; remove it"
            )

    def _other(self, value: Any, place: tuple[str, ...]) -> Any:
        key = place[-1]
        if key == "multipleOf":
            number = self._number(value, place)
            if number <= 0:
                raise self._error(place, f"is {shown(number)}; it must be above 0")
            if number > EXACT:
                raise self._beyond(place, f"is {shown(number)}; it must be at most {EXACT:,}")
        elif key == "required":
            if not isinstance(value, list) or not all(isinstance(name, str) for name in value):
                raise self._error(place, f"must be a list of names, not {shown(value)}")
        elif key == "type":
            for name in value if isinstance(value, list) else [value]:
                if not isinstance(name, str) or name not in _SIMPLE:
                    raise self._error(
                        place, f"cannot be used: {shown(name)} is not one of {', '.join(sorted(_SIMPLE))}"
                    )
        elif key == "enum" and not isinstance(value, list):
            raise self._error(place, f"must be a list, not {shown(value)}")
        else:
            self._exact(value, place)
        return value

    def _exact(self, value: Any, place: tuple[str, ...]) -> None:
        """Refuse numbers in const and enum that llguidance would write as others."""
        for node, _ in [(value, 1), *containers(value)]:
            inside = node.values() if isinstance(node, dict) else node if isinstance(node, list) else [node]
            for one in inside:
                if isinstance(one, int) and not -(1 << 63) <= one < 1 << 64:
                    raise self._beyond(place, f"has {shown(one)}; integers must fit in 64 bits")

    def _patterns(self, value: dict[str, Any], place: tuple[str, ...]) -> None:
        for pattern in value:
            self._pattern(pattern, (*place, pattern))

    def _unknown(self, key: str, value: Any, place: tuple[str, ...]) -> Any:
        """Refuse a keyword that is spelled wrongly; in another one, limit what a reference may lead to.

        Schemas can stand below any name (#/components/schemas/...). What cannot be enforced there is refused by llguidance, which reads it where it is referred to.
        """
        meant = _SPELLED.get(key.replace("_", "").replace("-", "").lower())
        if meant is not None:
            raise self._beyond(place, f"is not a keyword of JSON Schema; did you mean {meant}?")
        for node, _ in containers(value):
            if isinstance(node, dict):
                for name, one in node.items():
                    if name in _COUNTS and isinstance(one, int | float):
                        self._count(one, (*place, name))
                    elif name == "$ref" and isinstance(one, str):
                        self._text(one, (*place, name))
                    elif name == "pattern" and isinstance(one, str):
                        check_repeats(one, "JSON schema's pattern", self._param)
        return value

    def _error(self, path: tuple[str, ...], what: str) -> BadRequest:
        return BadRequest(_sentence(path, what), param=self._param)

    def _beyond(self, path: tuple[str, ...], what: str) -> Unenforceable:
        return Unenforceable(_sentence(path, what), param=self._param)


def _sentence(path: tuple[str, ...], what: str) -> str:
    where = ".".join(path)
    return f"the JSON schema's {where:.120} {what}" if where else f"the JSON schema {what}"


def _newer(schema: dict[str, Any]) -> dict[str, Any]:
    """Return draft 4's exclusiveMinimum: true as the drafts after it write it."""
    said = dict(schema)
    for exclusive, bound in (("exclusiveMinimum", "minimum"), ("exclusiveMaximum", "maximum")):
        if isinstance(said.get(exclusive), bool) and said.pop(exclusive) and bound in said:
            said[exclusive] = said.pop(bound)
    return said


def _annotates(key: str, value: object, schema: dict[str, Any]) -> bool:
    """Return whether a format limits nothing: one that says how a value is kept, or one of texts beside another type."""
    if key != "format" or not isinstance(value, str):
        return False
    types = schema.get("type")
    named = types if isinstance(types, list) else [types]
    return value in ANNOTATION_FORMATS or (types is not None and "string" not in named)


__all__ = ["ANNOTATIONS", "MAX_COUNT", "MAX_DEPTH", "REFUSED", "Unenforceable", "check_repeats", "prepared"]
