"""Which fields of a schema have values that can be listed."""

from typing import Any

import pytest

from mixcli.engine.closed_values import MAX_VALUES, closed_values

CLOSED: list[tuple[dict[str, Any], list[object]]] = [
    ({"enum": ["a", "b"]}, ["a", "b"]),
    ({"type": "string", "enum": ["a", 1, None]}, ["a"]),
    ({"const": 3}, [3]),
    ({"type": "boolean"}, [True, False]),
    ({"type": ["boolean", "null"]}, [True, False, None]),
    ({"type": "integer", "minimum": -1, "exclusiveMaximum": 2}, [-1, 0, 1]),
    ({"type": "integer", "exclusiveMinimum": 0, "maximum": 9, "multipleOf": 3}, [3, 6, 9]),
    ({"type": "integer", "minimum": 0.5, "maximum": 2.5}, [1, 2]),
    ({"anyOf": [{"$ref": "#/$defs/T"}, {"type": "null"}]}, ["x", "y", None]),
    ({"allOf": [{"$ref": "#/$defs/T"}]}, ["x", "y"]),
]
OPEN: list[dict[str, Any]] = [
    {},
    {"type": "string"},
    {"type": "integer", "minimum": 0},
    {"type": "integer", "minimum": 0, "maximum": MAX_VALUES},
    {"type": "number", "minimum": 0, "maximum": 3},
    {"enum": [1.5, 2]},
    {"enum": [["a"], "b"]},
    {"enum": ["ab", "c"], "minLength": 2},
    {"anyOf": [{"enum": ["a"]}, {"type": "string"}]},
    {"$ref": "#/$defs/Missing"},
    {"$ref": "#/$defs/Circle"},
]
DEFS = {"T": {"enum": ["x", "y"]}, "Circle": {"$ref": "#/$defs/Circle"}}


def within(schema: dict[str, Any]) -> dict[str, Any]:
    return {"type": "object", "properties": {"f": {"type": "array", "items": schema}}, "$defs": DEFS}


@pytest.mark.parametrize(("schema", "values"), CLOSED)
def test_listed(schema: dict[str, Any], values: list[object]) -> None:
    assert list(closed_values(within(schema), ("f", 7)) or ()) == values


@pytest.mark.parametrize("schema", OPEN)
def test_open(schema: dict[str, Any]) -> None:
    assert closed_values(within(schema), ("f", 0)) is None


def test_what_depends_on_the_rest_of_the_answer_is_open() -> None:
    """Behind kind: a only 1 and 2 are possible, so a list of all three would be wrong."""
    kinds = [
        {"type": "object", "properties": {"kind": {"const": kind}, "n": {"enum": numbers}}}
        for kind, numbers in (("a", [1, 2]), ("b", [3]))
    ]
    assert closed_values({"anyOf": kinds}, ("n",)) is None
    assert closed_values({"type": "object", "properties": {}}, ("n",)) is None
