"""Request bodies, in process: whatever they hold, they are taken, or refused with the field's name."""

import json
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from mixcli.engine.constraint_spec import ConstraintSpec
from mixcli.engine.json_schema import ANNOTATIONS, REFUSED
from mixcli.errors import BadRequest
from mixcli.host.api.chat_schema import ChatRequest
from mixcli.host.api.json_body import load, parsed
from mixcli.host.api.token_routes import ExpertsRequest, TokenizeRequest
from mixcli.host.idempotency import digest

MESSAGES = '"messages": [{"role": "user", "content": "Hi"}]'
SCHEMA = "response_format.json_schema.schema"


def refused(text: str | bytes, model: type[Any] = ChatRequest) -> BadRequest:
    raw = text.encode("utf-8", "surrogatepass") if isinstance(text, str) else text
    with pytest.raises(BadRequest) as caught:
        request = parsed(model, raw)
        if isinstance(request, ChatRequest):
            request.question()
            digest(request.model_dump(by_alias=True))
    assert len(str(caught.value)) < 400
    return caught.value


def with_schema(schema: str) -> str:
    named = f'{{"name": "x", "schema": {schema}}}'
    return f'{{{MESSAGES}, "response_format": {{"type": "json_schema", "json_schema": {named}}}}}'


@pytest.mark.parametrize(
    ("body", "param"),
    [
        ("", "body"),
        ("[1]", "body"),
        ("{", "body"),
        (b"\xff{}", "body"),
        ("{}", "messages"),
        (f'{{{MESSAGES}, "messages": []}}', "messages"),
        (f'{{{MESSAGES}, "seed": 1, "seed": 1}}', "seed"),
        ('{"messages": [{"role": "user", "role": "user", "content": "x"}]}', "messages.0.role"),
        ('{"messages": [{"role": "user", "content": "\\ud800"}]}', "messages.0.content"),
        ('{"messages": [{"role": "user", "content": [{"type": "text", "text": "\\ude00"}]}]}', "messages.0.content.0.text"),
        ('{"messages": [{"role": "user", "content": 5}]}', "messages.0.content"),
        ('{"messages": [{"role": "user", "content": [{"type": "image_url"}]}]}', "messages.0.content.0.type"),
        ('{"messages": [{"role": "user"}]}', "messages.0.content"),
        ('{"messages": [{"role": "narrator", "content": "x"}]}', "messages.0.role"),
        ('{"messages": [{"role": "user", "content": "x", "token_ids": [true]}]}', "messages.0.token_ids.0"),
        ('{"messages": [1' + ",1" * 1_000_000 + "]}", "messages.0"),
        ('{"messages": ' + "[" * 100_000 + "]" * 100_000 + "}", "messages"),
        (f'{{{MESSAGES}, "metadata": ' + '{"a":' * 100_000 + "1" + "}" * 100_001, "metadata"),
        (f'{{{MESSAGES}, "user": NaN}}', "user"),
        (f'{{{MESSAGES}, "temperature": Infinity}}', "temperature"),
        (f'{{{MESSAGES}, "temperature": -1e999}}', "temperature"),
        (f'{{{MESSAGES}, "temperature": "1"}}', "temperature"),
        (f'{{{MESSAGES}, "max_tokens": 1{"0" * 10_000}}}', "max_tokens"),
        (f'{{{MESSAGES}, "max_tokens": 1{"0" * 30}}}', "max_tokens"),
        (f'{{{MESSAGES}, "seed": true}}', "seed"),
        (f'{{{MESSAGES}, "n": true}}', "n"),
        (f'{{{MESSAGES}, "n": 129}}', "n"),
        (f'{{{MESSAGES}, "stream": "false"}}', "stream"),
        (f'{{{MESSAGES}, "logprobs": 1}}', "logprobs"),
        (f'{{{MESSAGES}, "stop": [""]}}', "stop"),
        (f'{{{MESSAGES}, "stop": ["a"{", 1" * 1_000_000}]}}', "stop.1"),
        (f'{{{MESSAGES}, "stop": "\\udc00"}}', "stop"),
        (f'{{{MESSAGES}, "logit_bias": {{"x": 1}}}}', "logit_bias"),
        (f'{{{MESSAGES}, "logit_bias": {{"\u0661": 1}}}}', "logit_bias"),
        (f'{{{MESSAGES}, "logit_bias": {{"1": null}}}}', "logit_bias.1"),
        (f'{{{MESSAGES}, "logit_bias": {{"5": 1, "05": -1}}}}', "logit_bias"),
        (f'{{{MESSAGES}, "logit_bias": {{{", ".join(f"{chr(34)}{i}{chr(34)}: 0" for i in range(5000))}}}}}', "logit_bias"),
        (f'{{{MESSAGES}, "structured_outputs": {{"choice": ["a", "\\ud800"]}}}}', "structured_outputs.choice.1"),
        (f'{{{MESSAGES}, "structured_outputs": {{"choice": ["a"{", 1" * 100_000}]}}}}', "structured_outputs.choice.1"),
        (f'{{{MESSAGES}, "structured_outputs": {{"regex": ""}}}}', "structured_outputs.regex"),
        (f'{{{MESSAGES}, "structured_outputs": {{"json": "{{\\"minLength\\": NaN}}"}}}}', "structured_outputs.json.minLength"),
        (f'{{{MESSAGES}, "structured_outputs": {{"json": "{"[" * 100_000}"}}}}', "structured_outputs.json"),
        (with_schema(f'{{"minLength": 1{"0" * 400}}}'), f"{SCHEMA}.minLength"),
        (with_schema('{"minimum": NaN}'), f"{SCHEMA}.minimum"),
        (with_schema('{"const": "\\ud800"}'), f"{SCHEMA}.const"),
        (with_schema('{"properties": {"\\ud800": {}}}'), f"{SCHEMA}.properties"),
        (with_schema('{"type": "string", "type": "integer"}'), f"{SCHEMA}.type"),
        (with_schema('{"items": ' * 80 + "{}" + "}" * 80), SCHEMA),
        (with_schema("[]"), SCHEMA),
    ],
)  # fmt: skip
def test_a_bad_field_is_named(body: str | bytes, param: str) -> None:
    assert refused(body).param == param


@pytest.mark.parametrize(
    ("model", "body", "param"),
    [
        (TokenizeRequest, '{"prompt": "\\ud800"}', "prompt"),
        (TokenizeRequest, '{"prompt": 5}', "prompt"),
        (TokenizeRequest, '{"messages": {}}', "messages"),
        (ExpertsRequest, '{"messages": []}', "messages"),
        (ExpertsRequest, '{"messages": [{"role": "user", "content": "x", "content": "y"}]}', "messages.0.content"),
        (ExpertsRequest, '{"messages": null}', "messages"),
    ],
)  # fmt: skip
def test_other_routes_name_it_too(model: type[Any], body: str, param: str) -> None:
    assert refused(body, model).param == param


@pytest.mark.parametrize(
    "fields",
    [
        {"temperature": None, "stream": None, "logprobs": None, "n": 1.0, "max_tokens": 5.0, "stop": None},
        {"logit_bias": {"5": -1}, "stop": ["a", "b"], "top_logprobs": 2, "logprobs": True},
        {"user": "\U0001f600", "metadata": {"a": [1, {"b": 2.5}]}},
    ],
)
def test_what_openai_clients_send_is_taken(fields: dict[str, Any]) -> None:
    body = {"messages": [{"role": "user", "content": [{"type": "text", "text": "Hi"}]}], **fields}
    parsed(ChatRequest, json.dumps(body).encode()).question()


anything = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(10**45), 10**45)
    | st.floats()
    | st.text(st.characters(), max_size=5)
    | st.sampled_from(["", "\ud800", "text", "json_schema", "user", "#", "#/$defs/a", "a{1,99999}", 10**400]),
    lambda inner: (
        st.lists(inner, max_size=4) | st.dictionaries(st.text(st.characters(), max_size=4), inner, max_size=4)
    ),
    max_leaves=12,
)
names = st.sampled_from([*ChatRequest.model_fields, "tools", "user"])
OTHERS = [
    "type",
    "enum",
    "const",
    "required",
    "multipleOf",
    "pattern",
    "format",
    "$ref",
    "minLength",
    "maxItems",
    "minProperties",
    "minimum",
    "exclusiveMaximum",
    "items",
    "prefixItems",
    "allOf",
    "properties",
    "patternProperties",
    "$defs",
    "additionalProperties",
    "min_length",
    "x-y",
]
keywords = st.sampled_from([*ANNOTATIONS, *REFUSED, *OTHERS])
schemas = st.recursive(
    anything, lambda inner: st.dictionaries(keywords, inner | anything, max_size=5), max_leaves=12
)


@pytest.mark.slow
@settings(max_examples=300, deadline=None, suppress_health_check=list(HealthCheck))
@given(st.dictionaries(names, anything | schemas, max_size=6), st.booleans())
def test_no_body_is_a_bug(fields: dict[str, Any], sound: bool) -> None:
    """Fuzzing: a request is taken or refused with a field and a sentence; nothing else is raised."""
    body = {**fields, "messages": [{"role": "user", "content": "x"}]} if sound else fields
    try:
        request = parsed(ChatRequest, json.dumps(body).encode())
        request.question()
        digest(request.model_dump(by_alias=True))
    except BadRequest as error:
        assert error.param
        str(error).encode()


@pytest.mark.slow
@settings(max_examples=300, deadline=None, suppress_health_check=list(HealthCheck))
@given(schemas)
def test_no_schema_is_a_bug(schema: Any) -> None:
    try:
        ConstraintSpec.of("json_schema", schema, param="here")
    except BadRequest as error:
        assert error.param == "here"
        str(error).encode("utf-8", "replace")


@settings(max_examples=200, deadline=None)
@given(st.binary(max_size=60) | st.text('{}[]":,0123456789eE.-\\undtrufalsNIiy ').map(str.encode))
def test_no_bytes_are_a_bug(raw: bytes) -> None:
    try:
        load(raw)
    except BadRequest as error:
        assert error.param
