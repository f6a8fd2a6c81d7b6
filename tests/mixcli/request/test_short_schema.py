"""The short form of a schema: what it means, and what it says of a text that means nothing."""

import json
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st
from jsonschema import Draft202012Validator

from mixcli.errors import UsageError
from mixcli.request.short_schema import TYPES, schema_of

TEXT, INT = {"type": "string"}, {"type": "integer"}


def properties(text: str) -> dict[str, object]:
    found = schema_of(text)["properties"]
    assert isinstance(found, dict)
    return found


def test_the_example_of_the_help() -> None:
    assert schema_of("name, age int, tags [string], kind (a|b)") == {
        "type": "object",
        "properties": {
            "name": TEXT,
            "age": INT,
            "tags": {"type": "array", "items": TEXT},
            "kind": {"type": "string", "enum": ["a", "b"]},
        },
        "required": ["name", "age", "tags", "kind"],
        "additionalProperties": False,
    }


def test_a_range_is_a_whole_number() -> None:
    stars = {"type": "integer", "minimum": 1, "maximum": 5}
    assert properties("stars 1..5") == properties("stars: 1..5") == {"stars": stars}
    assert properties("stars [-2..0]?, b")["stars"] == {
        "type": "array",
        "items": {"type": "integer", "minimum": -2, "maximum": 0},
    }
    assert properties("stars 1..5: how good it is")["stars"] == {**stars, "description": "how good it is"}
    with pytest.raises(UsageError, match=r"range 5\.\.1 is empty"):
        schema_of("stars 5..1")


@pytest.mark.parametrize("word", TYPES)
def test_every_type_has_its_word(word: str) -> None:
    assert properties(f"x {word}") == properties(f"x {word.upper()}") == {"x": TYPES[word]}


def test_lists_choices_and_objects_nest() -> None:
    assert properties("orders [{id int, state (open|in transit)}], grid [[float]], bare []") == {
        "orders": {
            "type": "array",
            "items": {
                "type": "object",
                "properties": {"id": INT, "state": {"type": "string", "enum": ["open", "in transit"]}},
                "required": ["id", "state"],
                "additionalProperties": False,
            },
        },
        "grid": {"type": "array", "items": {"type": "array", "items": {"type": "number"}}},
        "bare": {"type": "array", "items": TEXT},
    }


def test_a_list_at_the_top() -> None:
    assert schema_of("[{name, age int}]")["items"]["required"] == ["name", "age"]


def test_fields_may_be_missing_and_have_descriptions() -> None:
    found = schema_of("name: the full name, age? int: in years\nnick ?")
    assert found["required"] == ["name"]
    assert found["properties"] == {
        "name": {**TEXT, "description": "the full name"},
        "age": {**INT, "description": "in years"},
        "nick": TEXT,
    }


@pytest.mark.parametrize(
    ("text", "schema"),
    [
        ("x: int", INT),
        ("x:int", INT),
        ("x: Integer: how many", {**INT, "description": "how many"}),
        ("x: [string]", {"type": "array", "items": TEXT}),
        ("x: list[int]", {"type": "array", "items": INT}),
        ("x string[]", {"type": "array", "items": TEXT}),
        ("x: (a|b): which", {"type": "string", "enum": ["a", "b"], "description": "which"}),
        ("x: the full name", {**TEXT, "description": "the full name"}),
        ("x: (in years)", {**TEXT, "description": "(in years)"}),
        ("x string: integr", {**TEXT, "description": "integr"}),
        ("x datetime", {"type": "string", "format": "date-time"}),
    ],
)
def test_a_type_may_stand_behind_a_colon(text: str, schema: dict[str, object]) -> None:
    assert properties(f"{text}, y") == {"x": schema, "y": TEXT}


def test_a_field_that_may_be_missing_is_written_in_three_ways() -> None:
    for text in ("a?: int, b", "a: int?, b", "a int?, b"):
        assert (properties(text)["a"], schema_of(text)["required"]) == (INT, ["b"])


PERSON = {"type": "object", "properties": {"name": TEXT, "schema": {"type": "object"}}}
NAMED = {"name": "person", "strict": True, "schema": PERSON}


@pytest.mark.parametrize(
    "wrapped",
    [
        NAMED,
        {"type": "json_schema", "json_schema": NAMED},
        {"response_format": {"type": "json_schema", "json_schema": NAMED}},
        {"type": "json_schema", **NAMED},
        {"type": "function", "function": {"name": "f", "description": "d", "parameters": PERSON}},
        PERSON,
    ],
)
def test_what_an_api_puts_around_a_schema_is_taken_off(wrapped: dict[str, object]) -> None:
    assert schema_of(json.dumps(wrapped)) == PERSON


def test_a_schema_of_pydantic_is_taken_as_it_is() -> None:
    from pydantic import BaseModel

    class Address(BaseModel):
        city: str

    class Person(BaseModel):
        name: str
        schema_: dict[str, int] | None = None
        homes: list[Address] = []

    schema = Person.model_json_schema()
    assert "$defs" in schema
    assert schema_of(json.dumps(schema)) == schema


@pytest.mark.parametrize("text", ["a,b int", " a ,\n b  int ,", "a\nb int\n", "a,\n\n  b int"])
def test_spaces_and_line_breaks_do_not_matter(text: str) -> None:
    assert properties(text) == {"a": TEXT, "b": INT}


def test_a_whole_schema_is_taken_as_it_is() -> None:
    whole = {"type": "object", "properties": {"a": {"const": 1}}}
    assert schema_of(f"  {json.dumps(whole)}") == whole


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("", "cannot be read: expected the name of a field, found its end"),
        ("null", "the schema is null, which describes no value"),
        ("true", "the schema is true"),
        (" -5.5 ", "the schema is -5.5"),
        ("name, age integr", "'integr'"),
        ("name, , ,", None),
        ("name age int", "'age'"),
        ("tags [string", "']'"),
        ("kind (a|b", "')'"),
        ("kind (a||b)", "a text"),
        ("kind ( | )", "a text"),
        ("name, name int", "two fields"),
        ("x {a, b", "'}'"),
        ("x {}", "the name of a field"),
        ("x int int", "expected the end or a comma"),
        ('{"type": ', "begins like JSON"),
        ("{name}", "no outer braces"),
        ("x " + "[" * 40 + "]" * 40, "levels deep"),
        ("x) int", "expected the end"),
        ("age: integr", "did you mean integer"),
        ("age: integr", "age string: integr"),
        ("born: date of birth", "begins with a type"),
        ("kind: a|b", "kind (a|b)"),
        ("age: int | null", "(int|null) would be texts, not types; write a field that may be missing as"),
        ("name (string|null)", "would be texts, not types"),
        ('kind ("a"|"b")', 'the schema\'s label "a" has quotes, which would be part of it'),
        ("kind: 'a'|'b'", "has quotes, which would be part of it"),
        ("ok (True|False)", "would be texts; write bool"),
        ("kind (a|b|a)", "the schema has the label 'a' twice"),
        ("x list", "lists are"),
        ("{}", "does not describe a value"),
        ('{"name": "string", "age": "int"}', "only 'name', 'age'"),
        ('{"type": "object", "type": "array"}', "'type' is given twice"),
    ],
)
def test_what_cannot_be_meant_is_a_sentence(text: str, says: str | None) -> None:
    if says is None:
        assert properties(text) == {"name": TEXT}  # commas too many are no harm
        return
    with pytest.raises(UsageError, match=re.escape(says)):
        schema_of(text)


@given(st.text(alphabet="ab ?:,|()[]{}\nint", max_size=40))
def test_any_text_is_a_valid_schema_or_a_sentence(text: str) -> None:
    try:
        schema = schema_of(text)
    except UsageError as error:
        assert str(error).startswith("the schema")
    else:
        Draft202012Validator.check_schema(schema)


def test_what_is_given_may_be_changed() -> None:
    properties("a, b int")["a"]["maxLength"] = 5  # type: ignore[index]
    assert properties("a, b int") == {"a": TEXT, "b": INT}
