"""Close the objects of a JSON schema: one that lists its properties has no others, unless it says so.

JSON Schema allows any others, and a model then writes on for as long as it likes. llama.cpp's server and xgrammar read a schema in this
way too; a client that wants others says `additionalProperties: true`. What is allowed is less than before, never more.
"""

from typing import Any

_SAY_MORE = frozenset(
    {"additionalProperties", "patternProperties", "unevaluatedProperties", "$ref", "anyOf", "oneOf"}
)
_NAMED, _LISTS = ("properties", "$defs", "definitions"), ("prefixItems", "anyOf", "oneOf")


def closed(schema: object) -> object:
    """Return a schema with its objects closed; unchanged where a part of it joins several lists of properties, which only together are whole."""
    return schema if _joins(schema) else _closed(schema)


def _joins(schema: object) -> bool:
    if isinstance(schema, list):
        return any(map(_joins, schema))
    if not isinstance(schema, dict):
        return False
    if "allOf" in schema or ("properties" in schema and schema.keys() & {"$ref", "anyOf", "oneOf"}):
        return True
    return any(map(_joins, schema.values()))


def _closed(schema: object) -> object:
    if not isinstance(schema, dict):
        return schema
    said: dict[str, Any] = dict(schema)
    for name in _NAMED:
        if isinstance(said.get(name), dict):
            said[name] = {key: _closed(value) for key, value in said[name].items()}
    for name in _LISTS:
        if isinstance(said.get(name), list):
            said[name] = [_closed(value) for value in said[name]]
    items = said.get("items")
    if items is not None:
        said["items"] = [_closed(value) for value in items] if isinstance(items, list) else _closed(items)
    if isinstance(said.get("properties"), dict) and not said.keys() & _SAY_MORE and _names_all(said):
        said["additionalProperties"] = False
    return said


def _names_all(schema: dict[str, Any]) -> bool:
    """Return whether the properties are all that an object must have."""
    known, required, least = schema["properties"], schema.get("required", []), schema.get("minProperties", 0)
    return (
        isinstance(required, list)
        and all(name in known for name in required if isinstance(name, str))
        and isinstance(least, int)
        and least <= len(known)
    )
