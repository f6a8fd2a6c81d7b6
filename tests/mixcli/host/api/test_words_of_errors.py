"""Errors of all APIs say what is wrong in the words of JSON, whatever stands in whatever field."""

import re
from typing import Any

import pytest

from tests.support.app import App

PYTHON = re.compile(r"NoneType|dictionary|\b(dict|int|str|bool|None|True|False)\b|instance of|<class|<\d+ x|object at 0x|Value error")  # fmt: skip
ASK = {"messages": [{"role": "user", "content": "x"}], "max_tokens": 1}
BODIES: dict[str, dict[str, Any]] = {
    "/v1/chat/completions": ASK,
    "/v1/completions": {"prompt": "x", "max_tokens": 1},
    "/v1/messages": ASK,
    "/v1/responses": {"input": "x", "max_output_tokens": 1},
    "/v1/embeddings": {"input": "x"},
    "/tokenize": {"prompt": "x"},
    "/detokenize": {"tokens": [5]},
    "/apply-template": {"messages": ASK["messages"]},
}
VALUES: tuple[Any, ...] = (True, 0.5, "x", [1], [{}], {"a": 1}, {"type": "x"})


def inside(value: object) -> list[dict[str, Any]]:
    """The same value at places further down."""
    return [
        {"messages": [{"role": "user", "content": [{"type": "text", "text": value}]}]},
        {"messages": [{"role": "assistant", "tool_calls": [{"id": "a", "function": value}]}]},
        {"tools": [{"type": "function", "function": value}]},
        {"tools": [{"type": "function", "function": {"name": "f", "parameters": value}}]},
        {"tools": [{"name": "f", "input_schema": value}]},
        {"response_format": {"type": "json_schema", "json_schema": value}},
        {"input": [{"role": "user", "content": [value]}]},
        {"text": {"format": value}},
        {"logit_bias": {"5": value}},
    ]


@pytest.mark.parametrize("path", BODIES)
def test_no_error_speaks_python(tiny: App, path: str) -> None:
    document = tiny.send("GET", "/openapi.json").json()
    schema = document["paths"][path]["post"]["requestBody"]["content"]["application/json"]["schema"]
    changes = [{name: value} for name in schema["properties"] for value in VALUES]
    n_refused = 0
    for change in [*changes, *(one for value in VALUES for one in inside(value))]:
        response = tiny.post(path, {**BODIES[path], **change})
        assert response.status_code < 500, (change, response.text)
        if response.status_code == 400:
            n_refused += 1
            message = response.json()["error"]["message"]
            assert not PYTHON.search(message), (change, message)
    assert n_refused > len(changes) // 4
