"""Which fields of a schema have values that can be listed."""

from typing import Any

import pytest

from mixcli.engine.closed_values import MAX_VALUES, ClosedValues
from tests.support.costly import runs

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
    assert list(ClosedValues(within(schema)).of(("f", 7)) or ()) == values


@pytest.mark.parametrize("schema", OPEN)
def test_open(schema: dict[str, Any]) -> None:
    assert ClosedValues(within(schema)).of(("f", 0)) is None


def test_what_depends_on_the_rest_of_the_answer_is_open() -> None:
    """Behind kind: a only 1 and 2 are possible, so a list of all three would be wrong."""
    kinds = [
        {"type": "object", "properties": {"kind": {"const": kind}, "n": {"enum": numbers}}}
        for kind, numbers in (("a", [1, 2]), ("b", [3]))
    ]
    assert ClosedValues({"anyOf": kinds}).of(("n",)) is None
    assert ClosedValues({"type": "object", "properties": {}}).of(("n",)) is None


def test_alternatives_that_lead_to_the_same_ones_are_looked_at_once() -> None:
    """Ten at each of twelve levels would be a thousand billion ways to one value."""
    code = """
from mixcli.engine.closed_values import ClosedValues
levels = {f"L{i}": {"anyOf": [{"$ref": f"#/$defs/L{i + 1}"}] * 10} for i in range(12)}
field = {"type": "array", "items": {"$ref": "#/$defs/L0"}}
values = ClosedValues({"properties": {"f": field}, "$defs": {**levels, "L12": {"enum": ["a", "b"]}}})
print(*values.of(("f", 3)), values.of(("f", 3, "x")))
"""
    assert runs(code) == "a b None"
