"""Check whether an answer in JSON has the shape that its schema asks for: a server that ignores the schema may return any JSON.

Types, listed values, names and items are looked at, which is what tells such an answer apart. What else a schema may ask for (patterns, limits,
anyOf, references) passes: a server that enforces schemas has done that.
"""

from collections.abc import Iterator, Mapping

from mixcli.system.python_words import json_kind

Schema = Mapping[str, object]

_KINDS: Mapping[str, type] = {
    "object": dict,
    "array": list,
    "string": str,
    "boolean": bool,
    "null": type(None),
}


def misfit(value: object, schema: object) -> str:
    """Return where a value breaks its schema, in a clause such as "age is a text, not of type integer"; "" where it fits."""
    return next(_faults(value, schema, ""), "")


def _faults(value: object, schema: object, place: str) -> Iterator[str]:
    if not isinstance(schema, Mapping) or "$ref" in schema:
        return
    called = place or "it"
    kinds = schema.get("type")
    kinds = [kinds] if isinstance(kinds, str) else kinds
    if isinstance(kinds, list) and kinds and not any(_is(value, kind) for kind in kinds):
        yield f"{called} is {json_kind(value)}, not of type {' or '.join(map(str, kinds))}"
        return
    listed = schema.get("enum")
    if isinstance(listed, list) and value not in listed:
        yield f"{called} has a value that is not listed"
    if "const" in schema and value != schema["const"]:
        yield f"{called} is not the constant of the schema"
    if isinstance(value, dict):
        yield from _faults_of_object(value, schema, place)
    if isinstance(value, list) and "prefixItems" not in schema:
        for number, item in enumerate(value):
            yield from _faults(item, schema.get("items"), f"{place}[{number}]")


def _faults_of_object(value: Mapping[str, object], schema: Schema, place: str) -> Iterator[str]:
    def inside(name: str) -> str:
        return f"{place}.{name}" if place else name

    fields, required = schema.get("properties"), schema.get("required")
    known = fields if isinstance(fields, dict) else {}
    for name in required if isinstance(required, list) else ():
        if name not in value:
            yield f"{inside(str(name))} is missing"
    for name, one in value.items():
        if name in known:
            yield from _faults(one, known[name], inside(name))
        elif schema.get("additionalProperties") is False and "patternProperties" not in schema:
            yield f"{inside(name):.80} is not a field of the schema"


def _is(value: object, kind: object) -> bool:
    """Return whether a value has a type of a schema; a type that is not known fits."""
    if kind in ("number", "integer"):
        is_fraction = isinstance(value, float) and not value.is_integer()
        return (
            isinstance(value, int | float)
            and not isinstance(value, bool)
            and not (kind == "integer" and is_fraction)
        )
    return isinstance(value, _KINDS.get(str(kind), object))


__all__ = ["misfit"]
