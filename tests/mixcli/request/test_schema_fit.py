"""Whether an answer has the shape of its schema: what tells a server that ignores schemas apart, and nothing that a good answer breaks."""

from typing import Any

import pytest

from mixcli.request.schema_fit import misfit
from mixcli.request.short_schema import schema_of

SHORT = schema_of("name, age int, tags [string], kind (a|b), extra? float, at? {x 1..5}")
GOOD: dict[str, Any] = {"name": "Ann", "age": 3, "tags": ["a"], "kind": "b"}


@pytest.mark.parametrize(
    "value",
    [
        GOOD,
        {**GOOD, "age": 3.0},
        {**GOOD, "age": 10**400},
        {**GOOD, "extra": 1, "at": {"x": 5}},
        {**GOOD, "tags": []},
    ],
)
def test_a_good_answer_fits(value: object) -> None:
    assert misfit(value, SHORT) == ""


@pytest.mark.parametrize(
    ("value", "fault"),
    [
        ([GOOD], "it is a list, not of type object"),
        ({}, "name is missing"),
        ({**GOOD, "age": 3.5}, "age is a number, not of type integer"),
        ({**GOOD, "age": True}, "age is true or false, not of type integer"),
        ({**GOOD, "tags": ["a", 1]}, "tags[1] is a number, not of type string"),
        ({**GOOD, "kind": "c"}, "kind has a value that is not listed"),
        ({**GOOD, "at": {"y": 1}}, "at.x is missing"),
        ({**GOOD, "more": 1}, "more is not a field of the schema"),
    ],
)
def test_the_first_fault_is_named(value: object, fault: str) -> None:
    assert misfit(value, SHORT) == fault


@pytest.mark.parametrize(
    ("value", "schema"),
    [
        ({"a": 1, "b": 2}, {"type": "object", "properties": {"a": {"type": "integer"}}}),
        ({"x1": 1}, {"patternProperties": {"^x": {}}, "additionalProperties": False}),
        (None, {"type": ["string", "null"]}),
        ([1, "a"], {"type": "array", "prefixItems": [{"type": "integer"}], "items": {"type": "string"}}),
        ("a", {"$ref": "#/$defs/x", "type": "integer"}),
        (3, True),
        (3, {"type": "something new"}),
    ],
)
def test_what_is_not_looked_at_passes(value: object, schema: object) -> None:
    assert misfit(value, schema) == ""
