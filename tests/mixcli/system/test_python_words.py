"""What Python says of values, in the words of JSON."""

import json

import pytest

from mixcli.system.python_words import json_kind, plain


@pytest.mark.parametrize(
    ("said", "words"),
    [
        ("'dict object' has no attribute 'x'", "an object has no attribute 'x'"),
        ("unsupported operand type(s) for +: 'NoneType' and 'str'", "unsupported operand type(s) for +: null and a text"),
        ("'NoneType' object is not iterable", "null is not iterable"),
        ("object of type 'int' has no len()", "object of type a number has no len()"),
        ('can only concatenate list (not "bool") to list', "can only concatenate list (not true or false) to list"),
        ("no filter named 'listed'", "no filter named 'listed'"),
    ],
)  # fmt: skip
def test_types_are_named_as_json_has_them(said: str, words: str) -> None:
    assert plain(said) == words


def test_every_kind_of_json_has_a_name() -> None:
    kinds = [json_kind(json.loads(text)) for text in ("null", "{}", "[]", '""', "1", "0.5", "true")]
    assert kinds == ["null", "an object", "a list", "a text", "a number", "a number", "true or false"]
