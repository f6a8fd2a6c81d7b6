"""Hostile request bodies against the host's own app and engine, in this process: 200 or 400 with the field's name, never 500, and the next request works."""

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from hypothesis import strategies as st

from mixcli.host.api.chat_fields import CHAT_RULES
from mixcli.host.api.chat_schema import ChatRequest
from tests.fuzz.budget import RIDDLES, for_a_while
from tests.fuzz.values import TEXTS, edited, edits, json_values
from tests.support.app import App, tiny_app

pytestmark = pytest.mark.slow

PLAIN = {"messages": [{"role": "user", "content": "Hello"}], "max_tokens": 2, "temperature": 0}
REFUSED = {400, 404, 405, 409, 413, 415, 422, 503}

FIELDS = [*sorted(ChatRequest.model_fields) * 12, *CHAT_RULES, "x"]
SCHEMA_KEYS = [
    "type", "properties", "required", "additionalProperties", "items", "prefixItems", "minItems", "maxItems", "minLength", "maxLength", "pattern", "format",
    "enum", "const", "anyOf", "oneOf", "allOf", "not", "$ref", "$defs", "definitions", "minimum", "maximum", "exclusiveMinimum", "multipleOf", "title",
    "description", "default", "examples", "if", "then", "uniqueItems", "contains", "propertyNames", "patternProperties", "minProperties", "x-order",
]  # fmt: skip
TYPES = ["object", "array", "string", "integer", "number", "boolean", "null"]

schemas = st.recursive(
    st.fixed_dictionaries({"type": st.sampled_from(TYPES)})
    | st.dictionaries(st.sampled_from(SCHEMA_KEYS), json_values(), max_size=3),
    lambda inner: (
        st.fixed_dictionaries(
            {"type": st.just("object")},
            optional={
                "properties": st.dictionaries(st.sampled_from(["a", "b", "é", ""]), inner, max_size=2),
                "required": st.lists(st.sampled_from(["a", "b", "c"]), max_size=2),
            },
        )
        | st.fixed_dictionaries({"type": st.just("array"), "items": inner})
        | st.fixed_dictionaries({"anyOf": st.lists(inner, max_size=2)})
    ),
    max_leaves=5,
)
choices = (
    st.lists(st.sampled_from(TEXTS) | st.text(max_size=5), max_size=5)
    | st.integers(1, 300).map(lambda n: [f"label {i}" for i in range(n)])
    | st.integers(1, 400).map(lambda n: ["word " * n, "no"])
)
regexes = st.sampled_from(
    [
        "a+",
        "(",
        "[",
        "a{1,100000}",
        "(a|b)*c",
        "\\p{L}+",
        "(?i)x",
        "",
        "^$",
        ".*",
        "(a*)*b",
        "\\",
        "é+",
        "[^\\x00]",
    ]
) | st.text(max_size=8)
grammars = st.sampled_from(
    [
        'root ::= "a"',
        "root ::= root",
        "x",
        'root ::= "a" root | "b"',
        "",
        "start: /a+/",
        "root ::= [a-z]+",
        'root ::= ("a"',
    ]
)
structured = (
    st.fixed_dictionaries({"json": schemas})
    | st.fixed_dictionaries({"regex": regexes})
    | st.fixed_dictionaries({"grammar": grammars})
    | st.fixed_dictionaries({"choice": choices})
    | json_values()
)
contents = (
    st.sampled_from(TEXTS)
    | st.text(max_size=20)
    | st.integers(1, 4000).map(lambda n: "word " * n)
    | json_values()
    | st.lists(
        st.fixed_dictionaries({"type": st.sampled_from(["text", "image_url"]), "text": st.text(max_size=3)}),
        max_size=2,
    )
)
messages = (
    st.lists(
        st.fixed_dictionaries(
            {
                "role": st.sampled_from(["system", "user", "assistant", "tool", "developer", ""]),
                "content": contents,
            },
            optional={"token_ids": json_values()},
        ),
        max_size=4,
    )
    | json_values()
)
fields = st.dictionaries(st.sampled_from(FIELDS), json_values(), max_size=3)
bodies = st.builds(
    lambda base, some, extra: {**base, **some, **extra},
    st.just(PLAIN) | st.just({**PLAIN, "stream": True}) | st.just({**PLAIN, "speculate": True, "logprobs": True, "top_logprobs": 3}),
    fields,
    st.just({}) | st.fixed_dictionaries({"structured_outputs": structured}) | st.fixed_dictionaries({"messages": messages}) | st.fixed_dictionaries({"response_format": st.fixed_dictionaries({"type": st.just("json_schema"), "json_schema": st.fixed_dictionaries({"schema": schemas})})}),
)  # fmt: skip


@dataclass(frozen=True)
class Case:
    """One request."""

    path: str
    body: bytes
    headers: dict[str, str]


def _case(path: str, body: object, changes: list[tuple[float, int]], key: str | None) -> Case:
    headers = {"Content-Type": "application/json", **({"Idempotency-Key": key} if key else {})}
    return Case(path, edited(json.dumps(body).encode(), changes), headers)


cases = st.builds(
    _case,
    st.sampled_from(["/v1/chat/completions"] * 8 + ["/tokenize", "/mixcli/experts"]),
    bodies | json_values(),
    st.just([]) | st.just([]) | edits(),
    st.none() | st.sampled_from(["a", "b"]),
)


@pytest.fixture
def app(tmp_path: Path, home: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[App]:
    monkeypatch.setenv("MIXCLI_KV_DISK", "0")
    with tiny_app(tmp_path) as app:
        yield app


def test_request_bodies(app: App) -> None:
    plain = _case("/v1/chat/completions", PLAIN, [], None)
    n_answered = 0

    def check(case: Case) -> None:
        nonlocal n_answered
        response = app.post(case.path, case.body, case.headers)
        assert response.status_code in {200, *REFUSED}, (response.status_code, response.text)
        if response.status_code == 200:
            n_answered += 1
        else:
            detail = response.json()["error"]
            assert detail["message"], detail
            assert not RIDDLES.search(detail["message"]), detail
            if response.status_code == 400:
                assert detail["param"], detail
        assert app.post(plain.path, plain.body, plain.headers).status_code == 200
        assert app.state.engine.error is None

    check(plain)
    n_cases = for_a_while(cases, check)
    assert n_answered > n_cases / 20, "hardly any request was answered"
