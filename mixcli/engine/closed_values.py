"""The values that a JSON schema lets one field have, where they can be listed: enums, booleans, null and small ranges of integers."""

import json
import math
from collections.abc import Iterator
from typing import Any

from mixcli.request.json_fields import Path

MAX_VALUES = 256  # of one field: as many as an answer may have labels
_HOPS = 32  # references and alternatives one after another
_TABLES = {"$defs", "definitions"}
_RANGE = {"minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum", "multipleOf"}

Schema = dict[str, Any]
Values = tuple[Any, ...]


def closed_values(schema: Schema, path: Path) -> Values | None:
    """Return all values of the field at `path` in the order of the schema, each once; None where they cannot be listed.

    `schema` is one that mixcli.engine.json_schema has prepared. Below alternatives that are objects the
    values depend on which of them is written, so they are not listed.
    """
    found: list[Schema] = [schema]
    for step in path:
        branches = list(_alternatives(schema, found[0]))
        if len(branches) != 1:
            return None
        below = _below(branches[0], step)
        if below is None:
            return None
        found = [below]
    values: dict[str, Any] = {}
    for one in _alternatives(schema, found[0]):
        listed = _listed(one)
        if listed is None:
            return None
        values |= {json.dumps(value): value for value in listed}
    return tuple(values.values()) if 0 < len(values) <= MAX_VALUES else None


def _alternatives(root: Schema, schema: Any, hops: int = 0) -> Iterator[Schema]:
    """Yield the schemas of which a value has to keep to one, references followed; an empty one stands for what is not followed."""
    if not isinstance(schema, dict) or hops > _HOPS:
        yield {}
        return
    said = schema.keys() - _TABLES
    if said == {"$ref"}:
        yield from _alternatives(root, _target(root, schema["$ref"]), hops + 1)
        return
    for key in ("anyOf", "oneOf", "allOf"):
        if said == {key} and (key != "allOf" or len(schema[key]) == 1):
            for one in schema[key]:
                yield from _alternatives(root, one, hops + 1)
            return
    yield schema


def _target(root: Schema, reference: str) -> Any:
    """Return what a reference such as #/$defs/Team leads to; None where that is nothing."""
    found: Any = root
    for step in reference.removeprefix("#").split("/")[1:]:
        name = step.replace("~1", "/").replace("~0", "~")
        if not isinstance(found, dict) or name not in found:
            return None
        found = found[name]
    return found


def _below(schema: Schema, step: str | int) -> Any:
    """Return the schema of a property or item; None where it is not one schema that is said in one place."""
    if schema.keys() & {"$ref", "anyOf", "oneOf", "allOf", "patternProperties"}:
        return None
    if isinstance(step, str):
        return schema.get("properties", {}).get(step)
    first = schema.get("prefixItems", [])
    return first[step] if step < len(first) else schema.get("items")


def _listed(schema: Schema) -> Values | None:
    """Return the values of a schema without alternatives; None where it says anything else about them."""
    said = schema.keys() - _TABLES - {"type"}
    types = schema.get("type")
    named = types if isinstance(types, list) else [types]
    if said in ({"const"}, {"enum"}):
        listed = schema["enum"] if "enum" in schema else [schema["const"]]
        if any(isinstance(value, dict | list | float) for value in listed):
            return None
        return tuple(value for value in listed if types is None or _type_of(value) & set(named))
    if types is None or not said <= _RANGE:
        return None
    values: list[Any] = []
    for name in named:
        if name == "boolean":
            values += (True, False)
        elif name == "null":
            values.append(None)
        elif name == "integer":
            numbers = _integers(schema)
            if numbers is None:
                return None
            values += numbers
        else:
            return None
    return tuple(values)


def _type_of(value: object) -> set[str]:
    if value is None:
        return {"null"}
    if isinstance(value, bool):
        return {"boolean"}
    return {"string"} if isinstance(value, str) else {"integer", "number"}


def _integers(schema: Schema) -> range | list[int] | None:
    """Return the integers of a range; None for one that is open or has too many."""
    low = max(
        math.ceil(schema["minimum"]) if "minimum" in schema else -math.inf,
        math.floor(schema["exclusiveMinimum"]) + 1 if "exclusiveMinimum" in schema else -math.inf,
    )
    high = min(
        math.floor(schema["maximum"]) if "maximum" in schema else math.inf,
        math.ceil(schema["exclusiveMaximum"]) - 1 if "exclusiveMaximum" in schema else math.inf,
    )
    if not (math.isfinite(low) and math.isfinite(high)) or high - low >= MAX_VALUES:
        return None
    numbers = range(int(low), int(high) + 1)
    step = schema.get("multipleOf")
    return numbers if step is None else [number for number in numbers if number % step == 0]
