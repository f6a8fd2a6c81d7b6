"""Objects of a schema have the properties that it lists, and others where it says so."""

from typing import Any

import pytest

from mixcli.engine.closed_objects import closed
from mixcli.engine.json_schema import prepared

TEXT = {"type": "string"}
LISTED = {"properties": {"a": TEXT}}
CLOSED = {**LISTED, "additionalProperties": False}


@pytest.mark.parametrize(
    ("schema", "expected"),
    [
        (LISTED, CLOSED),
        ({"properties": {"b": LISTED}, "required": ["b"]}, {"properties": {"b": CLOSED}, "required": ["b"], "additionalProperties": False}),
        ({"items": LISTED}, {"items": CLOSED}),
        ({"items": [LISTED, TEXT]}, {"items": [CLOSED, TEXT]}),
        ({"prefixItems": [LISTED]}, {"prefixItems": [CLOSED]}),
        ({"anyOf": [LISTED, TEXT]}, {"anyOf": [CLOSED, TEXT]}),
        ({"$ref": "#/$defs/x", "$defs": {"x": LISTED}}, {"$ref": "#/$defs/x", "$defs": {"x": CLOSED}}),
    ],
)  # fmt: skip
def test_an_object_has_only_the_properties_that_are_listed(
    schema: dict[str, Any], expected: dict[str, Any]
) -> None:
    assert closed(schema) == expected
    assert prepared(schema, "schema") == prepared(expected, "schema")


@pytest.mark.parametrize(
    "schema",
    [
        True,
        {},
        {"type": "object"},
        {**LISTED, "additionalProperties": True},
        {**LISTED, "additionalProperties": TEXT},
        {**LISTED, "patternProperties": {"^b": TEXT}},
        {**LISTED, "required": ["b"]},
        {**LISTED, "minProperties": 2},
        {**LISTED, "anyOf": [{"properties": {"b": TEXT}}, {"properties": {"c": TEXT}}]},
        {"allOf": [LISTED, {"properties": {"b": TEXT}}]},
        {"items": {"$ref": "#/$defs/x", "properties": {"b": TEXT}}, "$defs": {"x": LISTED}},
        {"const": {"properties": {"a": 1}}},
    ],
)
def test_an_object_that_may_have_others_is_left_open(schema: Any) -> None:
    assert closed(schema) == schema
