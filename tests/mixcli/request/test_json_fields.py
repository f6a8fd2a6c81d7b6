"""The fields of a JSON text: names, places, and replacing one."""

import json

import pytest

from mixcli.request.json_fields import any_index, json_fields, parts, path_name, without

TEXT = ' {"a": 1.5e3,"b c":[true, "x\\"y\\u00e9", {}, []], "v1.2": {"e": null, "ü":"ß"}} '


def test_every_field_has_its_name_and_its_place() -> None:
    found = {path_name(one.path): TEXT[one.begin : one.end] for one in json_fields(TEXT)}
    assert found == {
        "a": "1.5e3",
        "b c[0]": "true",
        "b c[1]": '"x\\"y\\u00e9"',
        "b c[2]": "{}",
        "b c[3]": "[]",
        '["v1.2"].e': "null",
        '["v1.2"].ü': '"ß"',
    }
    assert [(one.path, one.value) for one in json_fields(TEXT)] == list(parts(json.loads(TEXT)))
    assert [path_name(one.path) for one in json_fields(" 3 ")] == ["answer"]
    assert any_index("b c[12].x[0]") == "b c[].x[]"


def test_a_named_field_becomes_null() -> None:
    value = json.loads(TEXT)
    assert without(value, frozenset({"b c[1]", "a"})) == {**value, "a": None, "b c": [True, None, {}, []]}


@pytest.mark.parametrize("text", ['{"a":1', "[1,,2]", "1 2", "", '{"a" 1}', "[1 2]", "{1:2}", "[" * 5000])
def test_what_is_not_json_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="JSON"):
        json_fields(text)
