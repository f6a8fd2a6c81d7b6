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


class ClosedValues:
    """The listed values of the fields of one schema, which mixcli.engine.json_schema has prepared; an answer may have thousands of fields at one place of it."""

    def __init__(self, schema: Schema) -> None:
        self._root = schema
        self._only_ones: dict[int, Schema | None] = {}  # by the identity of a part of the schema, as the next
        self._values: dict[int, Values | None] = {}

    def of(self, path: Path) -> Values | None:
        """Return all values of the field at `path` in the order of the schema, each once; None where they cannot be listed.

        Below alternatives that are objects the values depend on which of them is written, so they are not listed.
        """
        place: Any = self._root
        for step in path:
            only = self._only(place)
            place = None if only is None else _below(only, step)
            if place is None:
                return None
        if id(place) not in self._values:
            self._values[id(place)] = self._listed(place)
        return self._values[id(place)]

    def _only(self, place: Any) -> Schema | None:
        """Return the one schema that a value has to keep to; None where there are several."""
        if id(place) not in self._only_ones:
            branches = list(_alternatives(self._root, place))
            self._only_ones[id(place)] = branches[0] if len(branches) == 1 else None
        return self._only_ones[id(place)]

    def _listed(self, place: Any) -> Values | None:
        values: dict[str, Any] = {}
        for one in _alternatives(self._root, place):
            listed = _listed(one)
            if listed is None:
                return None
            values |= {json.dumps(value): value for value in listed}
        return tuple(values.values()) if 0 < len(values) <= MAX_VALUES else None


def _alternatives(root: Schema, schema: Any) -> Iterator[Schema]:
    """Yield the schemas of which a value has to keep to one, each once, references followed; an empty one stands for what is not followed.

    One that was seen is not looked at again: alternatives that lead to the same ones, level by level, would be more than any time is enough for.
    """
    todo, seen = [(schema, 0)], set[int]()
    while todo:
        one, hops = todo.pop()
        if id(one) in seen:
            continue
        seen.add(id(one))
        if not isinstance(one, dict) or hops > _HOPS:
            yield {}
            continue
        said = one.keys() - _TABLES
        key = next((key for key in ("anyOf", "oneOf", "allOf") if said == {key}), "")
        if said == {"$ref"}:
            todo.append((_target(root, one["$ref"]), hops + 1))
        elif key and (key != "allOf" or len(one[key]) == 1):
            todo += [(each, hops + 1) for each in reversed(one[key])]
        else:
            yield one


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
