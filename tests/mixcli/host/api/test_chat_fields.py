"""Each field of other servers' chat requests is done under our name, dropped where it changes nothing, or refused by its name."""

import json
from itertools import chain
from typing import Any

import pytest

from mixcli.errors import BadRequest
from mixcli.host.api.chat_fields import (
    CHAT_RULES,
    MESSAGE_RULES,
    PART_RULES,
    SCHEMA_RULES,
    STREAM_RULES,
    STRUCTURED_RULES,
)
from mixcli.host.api.chat_schema import ChatRequest
from mixcli.host.api.field_rules import FieldRule
from mixcli.host.api.json_body import parsed
from tests import field_page

USER = {"role": "user", "content": "Hi"}
# OpenAI's reference of POST /v1/chat/completions
OPENAI = [
    "audio", "frequency_penalty", "function_call", "functions", "logit_bias", "logprobs", "max_completion_tokens", "max_tokens", "messages", "metadata",
    "modalities", "model", "moderation", "n", "parallel_tool_calls", "prediction", "presence_penalty", "prompt_cache_key", "prompt_cache_options",
    "prompt_cache_retention", "reasoning_effort", "response_format", "safety_identifier", "seed", "service_tier", "stop", "store", "stream", "stream_options",
    "temperature", "tool_choice", "tools", "top_logprobs", "top_p", "user", "verbosity", "web_search_options",
]  # fmt: skip
# mistralai's ChatCompletionRequest, beside those
MISTRAL = ["random_seed", "safe_prompt", "min_tokens", "repetition_penalty", "top_k", "prompt_logprobs", "top_prompt_logprobs", "prompt_mode", "guardrails"]  # fmt: skip
# a value of a field that our own name has too, by that name
VALUES: dict[str, object] = {
    "thinking_token_budget": 6,
    "enable_thinking": True,
    "max_tokens": 5,
    "n": 2,
    "seed": 7,
    "repeat_penalty": 1.5,
    "structured_outputs.json": {"type": "integer"},
    "structured_outputs.regex": "a+",
    "structured_outputs.choice": ["a", "b"],
    "structured_outputs.grammar": 'root ::= "a"',
}


def body(**fields: object) -> dict[str, Any]:
    return {"messages": [USER], **fields}


def read(fields: dict[str, Any]) -> ChatRequest:
    request = parsed(ChatRequest, json.dumps(fields).encode())
    request.questions()
    return request


def refused(fields: dict[str, Any]) -> BadRequest:
    with pytest.raises(BadRequest) as caught:
        read(fields)
    return caught.value


def of_kind(*, alias: bool) -> list[Any]:
    return [
        pytest.param(name, rule, id=name) for name, rule in CHAT_RULES.items() if bool(rule.becomes) == alias
    ]


@pytest.mark.parametrize(("name", "rule"), of_kind(alias=True))
def test_another_name_is_the_same_field(name: str, rule: FieldRule) -> None:
    value = VALUES[rule.becomes]
    outer, _, inner = rule.becomes.partition(".")
    ours = read(body(**{outer: {inner: value} if inner else value}))
    assert read(body(**{name: value})).model_dump() == ours.model_dump()
    assert read(body(**{name: value, outer: {inner: value} if inner else value})) is not None, "they agree"
    wrong = refused(body(**{name: [[]]}))
    assert wrong.param.split(".")[0] == name
    assert name in str(wrong)


@pytest.mark.parametrize(("name", "rule"), of_kind(alias=False))
def test_what_asks_for_nothing_is_dropped_and_all_else_is_refused(name: str, rule: FieldRule) -> None:
    plain = read(body()).model_dump()
    for value in [None, *([5, "x", {"a": 1}] if rule.passes is None else rule.passes)]:
        assert read(body(**{name: value})).model_dump() == plain
    if rule.passes is not None:
        for value in ({"asks": 1}, ["asks"], "asks", 17, True, False):
            if value not in rule.passes or (
                isinstance(value, bool) and not any(one is value for one in rule.passes)
            ):
                error = refused(body(**{name: value}))
                assert error.param == name
                assert str(error).startswith(f"{name} ")
                assert error.code == ("unsupported_value" if rule.passes else "unsupported_parameter")


@pytest.mark.parametrize("name", [*OPENAI, *MISTRAL])
def test_every_field_of_the_cloud_is_known(name: str) -> None:
    assert name in ChatRequest.model_fields or name in CHAT_RULES
    assert not (name in ChatRequest.model_fields and name in CHAT_RULES), "in one place"


def test_the_installed_client_has_no_other_fields() -> None:
    params = pytest.importorskip("openai.types.chat.completion_create_params")
    assert set(params.CompletionCreateParamsBase.__annotations__) <= set(OPENAI)


@pytest.mark.parametrize("name", ["x", "temprature", "max_token", "extra_body", "\ud83d\ude00" * 50, ""])
def test_unknown_fields_are_refused(name: str) -> None:
    error = refused(body(**{name: 1}))
    assert error.code == "unknown_parameter"
    assert read(body(**{name: None})), "null is absent, whatever its name"
    if name == "temprature":
        assert "temperature" in str(error)


def test_null_is_absent_in_every_place() -> None:
    nothing = dict.fromkeys([*ChatRequest.model_fields, *CHAT_RULES])
    message = {**dict.fromkeys(MESSAGE_RULES), **USER, "token_ids": None, "prefix": None}
    plain = read(body()).model_dump()
    assert read({**nothing, "messages": [message]}).model_dump() == plain
    parts = [{"type": "text", "text": "Hi", **dict.fromkeys(PART_RULES)}]
    assert read({"messages": [{**USER, "content": parts}]}).question() == read(body()).question()
    form = {
        "type": "json_schema",
        "schema": None,
        "json_schema": {"name": None, "schema": {}, **dict.fromkeys(SCHEMA_RULES)},
    }
    assert read(body(response_format=form)).constraint() is not None
    assert read(body(response_format={"type": "text", "json_schema": None})).constraint() is None
    asked = {"json": None, "regex": "a", "grammar": None, "choice": None, **dict.fromkeys(STRUCTURED_RULES)}
    assert read(body(structured_outputs=asked)).constraint() is not None
    options = {"include_usage": None, **dict.fromkeys(STREAM_RULES)}
    assert not read(body(stream=True, stream_options=options)).stream_options.include_usage


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"max_tokens": 5, "max_completion_tokens": 6}, "max_completion_tokens"),
        ({"guided_regex": "a", "guided_choice": ["b"]}, "guided_choice"),
        ({"grammar": "root ::= \"a\"", "json_schema": {}}, "json_schema"),
        ({"structured_outputs": {"regex": "a"}, "guided_json": {}}, "guided_json"),
        ({"response_format": {"type": "json_object"}, "structured_outputs": {"regex": "a"}}, "structured_outputs"),
        ({"response_format": {"type": "json_object"}, "guided_json": {}}, "guided_json"),
        ({"response_format": {"type": "json_object", "schema": {}, "json_schema": {"schema": {}}}}, "response_format.schema"),
        ({"response_format": {"type": "json_object", "schema": 123}}, "response_format.schema"),
        ({"response_format": {"type": "json_object", "schema": {"type": "hiccup"}}}, "response_format.schema"),
        ({"response_format": {"type": "sound"}}, "response_format.type"),
        ({"response_format": {"type": "json_schema"}}, "response_format.json_schema"),
        ({"response_format": {"type": "text", "x": 1}}, "response_format.x"),
        ({"guided_json": {"type": "hiccup"}}, "guided_json"),
        ({"guided_json": "{"}, "guided_json"),
        ({"json_schema": {"minLength": -1}}, "json_schema"),
        ({"guided_choice": ["a", 1]}, "guided_choice.1"),
        ({"repetition_penalty": 100}, "repetition_penalty"),
        ({"n_predict": 0}, "n_predict"),
        ({"max_tokens": -2}, "max_tokens"),
        ({"random_seed": 0.5}, "random_seed"),
        ({"n": 0}, "n"),
        ({"n": 129}, "n"),
        ({"min_tokens": 9, "max_completion_tokens": 8}, "min_tokens"),
        ({"stream_options": {"include_usage": True}}, "stream_options"),
        ({"stop": ["x"] * 17}, "stop"),
        ({"response_format": {"type": "text", "json_schema": {"schema": {"type": "object"}}}}, "response_format.type"),
        ({"chat_template_kwargs": {"custom_switch": True}}, "chat_template_kwargs.custom_switch"),
        ({"think": True, "chat_template_kwargs": {"enable_thinking": False}}, "chat_template_kwargs.enable_thinking"),
        ({"thinking": {"type": "maybe"}}, "thinking.type"),
        ({"messages": [{**USER, "refusal": "No."}]}, "messages.0.refusal"),
        ({"messages": [{"role": "assistant", "refusal": {"a": 1}}]}, "messages.0.refusal"),
        ({"messages": [{"role": "assistant", "content": [{"type": "refusal", "text": "No."}]}]}, "messages.0.content.0.refusal"),
        ({"messages": [{"role": "assistant", "content": [{"type": "thinking", "thinking": [{"type": "image"}]}]}]}, "messages.0.content.0.thinking"),
        ({"messages": [{"role": "user", "content": [{"type": "refusal", "refusal": "No."}]}]}, "messages.0"),
        ({"messages": [{"role": "user", "content": [{"type": "thinking", "thinking": "Hm."}]}]}, "messages.0"),
        ({"stream": True, "stream_options": {"x": 1}}, "stream_options.x"),
        ({"top_logprobs": 2}, "top_logprobs"),
        ({"logprobs": False, "top_logprobs": 2}, "top_logprobs"),
        ({"structured_outputs": {"regex": "a", "whitespace_pattern": "x"}}, "structured_outputs.whitespace_pattern"),
        ({"messages": [{**USER, "x": 1}]}, "messages.0.x"),
        ({"messages": [USER, {"role": "tool", "content": "5", "tool_call_id": "a"}]}, "messages.1.tool_call_id"),
        ({"messages": [{"role": "user", "content": None}]}, "messages.0.content"),
        ({"messages": [{"role": "system"}]}, "messages.0.content"),
        ({"messages": [{**USER, "content": [{"type": "text", "text": "x", "y": 1}]}]}, "messages.0.content.0.y"),
        ({"messages": [{**USER, "prefix": True}]}, "messages.0.prefix"),
        ({"messages": [{"role": "assistant", "content": "a", "prefix": True}, USER]}, "messages.0.prefix"),
        ({"continue_final_message": True}, "continue_final_message"),
        ({"continue_final_message": False, "messages": [USER, {"role": "assistant", "content": "a"}]}, "continue_final_message"),
        ({"add_generation_prompt": False}, "add_generation_prompt"),
        ({"logit_bias": {"hello": 1}}, "logit_bias"),
    ],
)  # fmt: skip
def test_what_cannot_be_is_named_as_it_was_sent(fields: dict[str, Any], param: str) -> None:
    error = refused({**body(), **fields})
    assert error.param == param
    assert str(error)


@pytest.mark.parametrize(
    "part",
    [
        {"type": "image_url", "image_url": {"url": "data:image/png;base64,AAAA", "detail": "low"}},
        {"type": "input_audio", "input_audio": {"data": "AAAA", "format": "wav"}},
        {"type": "file", "file": {"file_id": "x"}},
        {"type": "document_url", "document_url": "https://example.org"},
    ],
)
def test_parts_that_are_no_text_are_refused_by_their_type(part: dict[str, Any]) -> None:
    text = {"type": "text", "text": "What is this?"}
    error = refused({"messages": [{"role": "user", "content": [text, part]}]})
    assert error.param == "messages.0.content.1.type"
    assert part["type"] in str(error)
    assert "send text" in str(error)


def test_what_clients_send_back_of_an_answer_is_taken() -> None:
    """openai's model_dump() of a message, and a turn without a text."""
    dumped = {
        "content": "Hello",
        "refusal": None,
        "role": "assistant",
        "annotations": [],
        "audio": None,
        "function_call": None,
        "tool_calls": None,
    }
    messages = [
        USER,
        dumped,
        {
            "role": "user",
            "content": [{"type": "text", "text": "a"}, {"type": "text", "text": "b"}],
            "name": "Ann",
        },
    ]
    question = read({"messages": messages}).question()
    assert [one.content for one in question.messages] == ["Hi", "Hello", "a\n\nb"]
    for empty in (
        {"role": "assistant"},
        {"role": "assistant", "content": None},
        {"role": "assistant", "content": ""},
    ):
        assert read({"messages": [USER, empty, USER]}).question().messages[1].content == ""


def test_refusals_and_thoughts_of_an_earlier_answer_are_read() -> None:
    """As OpenAI writes refusals, in a field or a part, and Mistral thoughts."""
    thinking = {
        "type": "thinking",
        "thinking": [{"type": "text", "text": "Hm"}, {"type": "text", "text": "."}],
    }
    turns: list[dict[str, Any]] = [
        {"role": "assistant", "content": None, "refusal": "No."},
        {"role": "assistant", "content": "", "refusal": "No."},
        {"role": "assistant", "content": [{"type": "refusal", "refusal": "No."}]},
        {"role": "assistant", "content": [thinking, {"type": "text", "text": "No."}]},
        {"role": "assistant", "content": [{"type": "thinking", "thinking": "Hm."}, {"type": "text", "text": "No."}]},
    ]  # fmt: skip
    messages = read({"messages": [USER, *turns, USER]}).question().messages
    assert {one.content for one in messages[1:-1]} == {"No."}
    assert [one.reasoning for one in messages[1:-1]] == ["", "", "", "Hm.", "Hm."]


@pytest.mark.parametrize(
    ("fields", "thinks"),
    [
        ({}, None),
        ({"enable_thinking": False}, False),
        ({"think": True}, True),
        ({"thinking": {"type": "disabled"}}, False),
        ({"thinking": {"type": "enabled"}}, True),
        ({"chat_template_kwargs": {"enable_thinking": False}}, False),
        ({"chat_template_kwargs": {"thinking": True}, "enable_thinking": True}, True),
    ],
)
def test_thinking_is_switched_as_in_other_servers(fields: dict[str, Any], thinks: bool | None) -> None:
    assert read(body(**fields)).question().thinking is thinks


def test_an_effort_may_stand_among_the_options_of_the_template() -> None:
    nested = body(chat_template_kwargs={"reasoning_effort": "high"})
    assert read(nested).question().reasoning_effort == "high"


def test_of_a_schema_that_is_not_strict_what_cannot_be_enforced_is_left_to_the_model() -> None:
    schema = {"type": "array", "items": {"type": "integer"}, "uniqueItems": True}  # as pydantic writes a set
    for strict in ({}, {"strict": None}, {"strict": True}):
        form = {"type": "json_schema", "json_schema": {"name": "n", "schema": schema, **strict}}
        assert "uniqueItems cannot be enforced" in str(refused(body(response_format=form)))
    loose = {"type": "json_schema", "json_schema": {"name": "n", "schema": schema, "strict": False}}
    constraint = read(body(response_format=loose)).question().constraint
    assert constraint is not None and "uniqueItems" not in constraint.text and '"integer"' in constraint.text


def test_what_pads_a_stream_changes_no_text() -> None:
    padded = read(body(stream=True, stream_options={"include_obfuscation": True}))
    assert padded.question() == read(body(stream=True)).question()


def test_a_developer_is_a_system() -> None:
    developer, system = (
        {"messages": [{"role": role, "content": "Be kind."}, USER]} for role in ("developer", "system")
    )
    assert read(developer).question() == read(system).question()


@pytest.mark.parametrize(
    ("fields", "name", "value"),
    [
        ({"max_tokens": -1}, "max_tokens", None),
        ({"max_completion_tokens": 9}, "max_tokens", 9),
        ({"n_predict": -1}, "max_tokens", None),
        ({"max_tokens": 7, "max_completion_tokens": 7}, "max_tokens", 7),
        ({"top_k": -1}, "top_k", 0),
        ({"seed": -1}, "seed", None),
        ({"random_seed": 3}, "seed", 3),
        ({"random_seed": None, "seed": 4}, "seed", 4),
        ({"repetition_penalty": 1.25}, "repeat_penalty", 1.25),
        ({"stop": []}, "stop", ()),
        ({"logprobs": False, "top_logprobs": 0}, "seed", None),
    ],
)
def test_values_mean_what_they_mean_elsewhere(fields: dict[str, Any], name: str, value: object) -> None:
    assert getattr(read(body(**fields)).sampling(), name) == value


@pytest.mark.parametrize("seed", [None, 5, (1 << 64) - 1, -(1 << 63)])
def test_answers_to_one_prompt_have_seeds_of_their_own(seed: int | None) -> None:
    first, *others = read(body(n=5, seed=seed)).questions()
    assert first.sampling.seed == seed
    seeds = [one.sampling.seed for one in (first, *others)]
    assert seed is None or len({one & 0xFFFFFFFF for one in seeds if one is not None}) == 5
    assert [one.park for one in (first, *others)] == [True, *[False] * 4]


def test_the_docs_have_every_field() -> None:
    page = field_page.PAGE.read_text("utf-8")
    assert page == field_page.page(), "run `make help`"
    assert [name for name in chain(CHAT_RULES, OPENAI) if f"`{name}`" not in page] == []
