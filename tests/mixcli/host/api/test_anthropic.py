"""Anthropic's Messages as a translation: requests into chat requests, outputs into blocks and events. Real clients: tests/clients."""

import asyncio
import json
from typing import Any

import pytest

from mixcli.engine.sampling import SamplingParams
from mixcli.engine.sequence import Output
from mixcli.errors import BadRequest, Busy, ContextOverflow
from mixcli.host.api.anthropic_response import MessagesWriter, error_message
from mixcli.host.api.anthropic_schema import CountRequest, MessagesRequest
from mixcli.host.api.json_body import parsed
from mixcli.host.call import Call, ChatQuestion
from mixcli.prompts.answer_parser import Segment
from mixcli.prompts.messages import Message
from tests.mixcli.host.api import answers
from tests.mixcli.host.api.answers import SEGMENTS

HI: Any = [{"role": "user", "content": "Hi"}]
USE = {"type": "tool_use", "id": "toolu_1", "name": "add", "input": {"a": 1, "b": None}}


def parts(*texts: str) -> list[dict[str, str]]:
    return [{"type": "text", "text": text} for text in texts]


def translated(**body: Any) -> dict[str, Any]:
    return MessagesRequest.model_validate({"max_tokens": 5, "messages": HI, **body})._body()


def test_turns_become_messages() -> None:
    result = {"type": "tool_result", "tool_use_id": "toolu_1", "content": [{"type": "text", "text": "3"}]}
    body = translated(
        system=[{"type": "text", "text": "Be "}, {"type": "text", "text": "brief.", "cache_control": {}}],
        messages=[
            {"role": "user", "content": [{"type": "text", "text": "1+"}, {"type": "text", "text": "2?"}]},
            {"role": "assistant", "content": [{"type": "thinking", "thinking": "hm"}, USE]},
            {"role": "user", "content": [result, {"type": "text", "text": "So?"}]},
            {"role": "assistant", "content": "The"},
        ],
    )
    call = {
        "id": "toolu_1",
        "type": "function",
        "function": {"name": "add", "arguments": '{"a": 1, "b": null}'},
    }
    assert body["messages"] == [
        {"role": "system", "content": parts("Be ", "brief.")},
        {"role": "user", "content": parts("1+", "2?")},
        {"role": "assistant", "content": [], "tool_calls": [call], "reasoning_content": "hm"},
        {"role": "tool", "tool_call_id": "toolu_1", "content": parts("3")},
        {"role": "user", "content": parts("So?")},
        {"role": "assistant", "content": "The"},
    ]


def test_an_error_of_a_tool_is_told_to_the_model() -> None:
    result = {"type": "tool_result", "tool_use_id": "toolu_1", "content": "no such city", "is_error": True}
    (message,) = translated(messages=[{"role": "user", "content": [result]}])["messages"]
    assert message == {"role": "tool", "tool_call_id": "toolu_1", "content": "Error: no such city"}


@pytest.mark.parametrize(
    ("choice", "expected"),
    [
        ({"type": "auto"}, {"tool_choice": "auto"}),
        ({"type": "any"}, {"tool_choice": "required"}),
        ({"type": "none"}, {"tool_choice": "none"}),
        (
            {"type": "tool", "name": "add", "disable_parallel_tool_use": True},
            {"tool_choice": {"type": "function", "function": {"name": "add"}}, "parallel_tool_calls": False},
        ),
    ],
)
def test_tools_and_their_choice(choice: Any, expected: Any) -> None:
    schema = {"type": "object"}
    body = translated(
        tools=[{"name": "add", "description": "Add.", "input_schema": schema}], tool_choice=choice
    )
    function = {"name": "add", "description": "Add.", "parameters": schema}
    assert body["tools"] == [{"type": "function", "function": function}]
    assert {name: body[name] for name in expected} == expected


def test_limits_and_the_form_of_the_answer() -> None:
    body = translated(
        stop_sequences=["x"],
        top_k=3,
        stream=True,
        output_config={"format": {"type": "json_schema", "schema": {"type": "object"}}, "effort": "max"},
        thinking={"type": "adaptive"},
        metadata={"user_id": "1"},
    )
    assert (body["stop"], body["top_k"], body["max_tokens"], body["stream"]) == (["x"], 3, 5, True)
    assert body["response_format"]["json_schema"]["schema"] == {"type": "object"}
    assert body["reasoning_effort"] == "high"


def block(kind: str) -> Any:
    return {"messages": [{"role": "user", "content": [{"type": kind, "source": {}}]}]}


@pytest.mark.parametrize(
    ("body", "said"),
    [
        (block("image"), "messages.0.content.0: image blocks are not supported"),
        (block("document"), "document blocks are not supported"),
        (block("redacted_thinking"), "redacted_thinking blocks"),
        (block("server_tool_use"), "server_tool_use blocks"),
        (
            {"tools": [{"type": "web_search_20250305", "name": "web_search"}]},
            "the built-in tool web_search_20250305",
        ),
        ({"tool_choice": {"type": "auto", "name": "add"}}, "name is required with the type tool"),
        ({"tool_choice": {"type": "tool"}}, "name is required with the type tool"),
        (
            {"context_management": {"edits": [{"type": "clear_tool_uses_20250919"}]}},
            "context_management.edits.0: the edit clear_tool_uses_20250919",
        ),
        ({"container": "c"}, "container is not supported"),
        ({"mcp_servers": [{}]}, "mcp_servers other than .. is not supported"),
        ({"unheard_of": 1}, "unheard_of"),
        ({"messages": []}, "messages: it is empty; send at least one message"),
        ({"max_tokens": -1}, "max_tokens: .* greater than or equal to 1"),
        ({"stop_sequences": "x"}, "stop_sequences"),
        ({"stop_sequences": ["x" * 99999]}, "stop_sequences"),
        ({"max_tokens": None}, "max_tokens"),
        ({"temperature": "hot"}, "temperature"),
        ({"top_p": 7}, "top_p"),
    ],
)
def test_what_cannot_be_done_is_refused_by_name(body: Any, said: str) -> None:
    with pytest.raises(BadRequest, match=said):
        parsed(MessagesRequest, json.dumps({"max_tokens": 5, "messages": HI, **body}).encode()).question()


@pytest.mark.parametrize("system", ["", "Be kind.", [{"type": "text", "text": "Be kind."}]])
def test_a_wrong_message_is_named_by_its_number_in_the_request(system: Any) -> None:
    used = [{"type": "tool_use", "id": name, "name": "add", "input": {}} for name in "ab"]
    results = [{"type": "tool_result", "tool_use_id": name, "content": "3"} for name in "ab"]
    turns = [{"role": "user", "content": "1+2?"}, {"role": "assistant", "content": used}, {"role": "user", "content": results}]  # fmt: skip
    with pytest.raises(
        BadRequest, match=r"^messages\.3\.content\.0\.tool_use_id 'a' is not the id"
    ) as caught:
        MessagesRequest.model_validate(
            {"max_tokens": 5, "system": system, "messages": [*turns, {"role": "user", "content": results}]}
        ).question()
    assert caught.value.param == "messages.3.content.0.tool_use_id"


@pytest.mark.parametrize(
    ("turns", "param"),
    [
        ([{"role": "user", "content": [{"type": "text", "text": "x"}, USE]}], "messages.0"),
        ([*HI, {"role": "assistant", "content": [{"type": "tool_result", "tool_use_id": "a"}]}], "messages.1"),
        ([*HI, {"role": "assistant", "content": [{"type": "text", "text": "x"}, {**USE, "name": "a b"}]}], "messages.1.content.1.name"),
        ([*HI, {"role": "assistant", "content": [USE, USE]}, *HI], "messages.1.content"),
        ([*HI, {"role": "assistant", "content": [USE]}, *HI], "messages"),
    ],
)  # fmt: skip
def test_a_wrong_block_is_named_by_its_place(turns: Any, param: str) -> None:
    raw = json.dumps({"max_tokens": 5, "messages": turns}).encode()
    with pytest.raises(BadRequest) as caught:
        parsed(MessagesRequest, raw).question()
    assert caught.value.param == param
    assert "tool_call" not in str(caught.value)


@pytest.mark.parametrize("block", [{"type": "text", "text": "a"}, {"type": "thinking", "thinking": "a"}])
def test_a_field_that_no_block_has_is_named_by_its_place(block: dict[str, str]) -> None:
    """The type of a block is also the name of a field in it."""
    raw = {"max_tokens": 5, "messages": [{"role": "assistant", "content": [{**block, "unheard_of": 1}]}]}
    with pytest.raises(BadRequest) as caught:
        parsed(MessagesRequest, json.dumps(raw).encode())
    assert caught.value.param == "messages.0.content.0.unheard_of"


@pytest.mark.parametrize(
    ("edits", "kept"),
    [
        ([], "abc"),
        ([{"type": "clear_thinking_20251015", "keep": "all"}], "abc"),  # as Claude Code sends it
        ([{"type": "clear_thinking_20251015", "keep": {"type": "all"}}], "abc"),
        ([{"type": "clear_thinking_20251015", "keep": {"type": "thinking_turns", "value": 2}}], "bc"),
        ([{"type": "clear_thinking_20251015", "keep": {"type": "thinking_turns", "value": 9}}], "abc"),
        ([{"type": "clear_thinking_20251015"}], "c"),
    ],
)
def test_thinking_of_older_turns_is_cleared_where_that_is_asked_for(edits: Any, kept: str) -> None:
    turns = [[{"type": "thinking", "thinking": name}, *parts("So.")] for name in "abc"]
    messages = [one for turn in turns for one in (*HI, {"role": "assistant", "content": turn})]
    body = translated(messages=[*messages, *HI], context_management={"edits": edits})
    assert [one.get("reasoning_content") for one in body["messages"][1::2]] == [
        name if name in kept else None for name in "abc"
    ]


def test_a_schema_may_have_its_older_name() -> None:
    form = {"type": "json_schema", "schema": {"type": "object"}}
    assert translated(output_format=form) == translated(output_config={"format": form})


def test_to_count_tokens_needs_no_limit() -> None:
    raw = json.dumps({"messages": HI, "system": "Be brief."}).encode()
    assert parsed(CountRequest, raw).question().messages[0].role == "system"


# answers


def outputs(*texts: str, reason: Any = "stop", stop: str | None = None) -> list[Output]:
    return [*(Output("id", text, (1,)) for text in texts), answers.end(reason, stop)]


async def written(said: list[Output]) -> tuple[list[Any], Any]:
    """Return the events of a stream, and the whole answer."""
    question = ChatQuestion((Message("user", "Hi"),), SamplingParams())
    call = Call("msg_1", question, asyncio.get_running_loop(), n_prompt=9, outputs=said)
    writer = MessagesWriter("msg_1", "demo")
    events = [*writer.opening([call])]
    for output in said:
        events += writer.delta(call, output)
        if output.is_last:
            events += writer.closing(call, output)
    events += writer.accounts([call])
    return events, MessagesWriter("msg_1", "demo").whole([call])


def gathered(events: list[Any]) -> list[Any]:
    """Put the blocks of a stream together, as a client does; each has to be opened, filled and closed in turn."""
    blocks: list[Any] = []
    is_open = False
    for event in events:
        match event["type"]:
            case "content_block_start":
                assert (is_open, event["index"]) == (False, len(blocks))
                blocks.append(dict(event["content_block"]))
                is_open = True
            case "content_block_delta":
                assert (is_open, event["index"]) == (True, len(blocks) - 1)
                delta = event["delta"]
                field = {"text_delta": "text", "thinking_delta": "thinking", "input_json_delta": "json"}[
                    delta["type"]
                ]
                blocks[-1][field] = (
                    blocks[-1].get(field, "") + delta[field if field != "json" else "partial_json"]
                )
            case "content_block_stop":
                assert (is_open, event["index"]) == (True, len(blocks) - 1)
                is_open = False
    assert not is_open
    for one in blocks:
        if one["type"] == "tool_use":
            one["input"] = json.loads(one.pop("json"))
    return blocks


@pytest.mark.parametrize(
    ("reason", "stop", "expected"),
    [
        ("stop", None, ("end_turn", None)),
        ("length", None, ("max_tokens", None)),
        ("stop", "END", ("stop_sequence", "END")),
    ],
)
def test_a_stream_says_what_a_whole_answer_says(reason: Any, stop: str | None, expected: Any) -> None:
    events, whole = asyncio.run(written(outputs("Hel", "lo", reason=reason, stop=stop)))
    assert [event["type"] for event in events] == [
        "message_start",
        "ping",
        "content_block_start",
        "content_block_delta",
        "content_block_delta",
        "content_block_stop",
        "message_delta",
        "message_stop",
    ]
    assert gathered(events) == whole["content"] == [{"type": "text", "text": "Hello"}]
    ended = events[-2]["delta"]
    assert (
        (whole["stop_reason"], whole["stop_sequence"])
        == (ended["stop_reason"], ended["stop_sequence"])
        == expected
    )
    assert events[-2]["usage"] == whole["usage"]
    assert (whole["usage"]["input_tokens"], whole["usage"]["cache_read_input_tokens"]) == (5, 4)


def test_reasoning_text_and_calls_are_blocks_of_their_own() -> None:
    events, whole = asyncio.run(written(answers.outputs(*SEGMENTS)))
    assert gathered(events) == whole["content"]
    assert [one["type"] for one in whole["content"]] == ["thinking", "text", "tool_use", "tool_use"]
    first, second = whole["content"][2:]
    assert (first["name"], first["input"]) == ("add", {"a": 1})
    assert first["id"] != second["id"]
    assert whole["stop_reason"] == "tool_use"


@pytest.mark.parametrize(
    ("arguments", "complete"),
    [("", {}), ('{"ci', {}), ('{"city": "Ul', {}), ('{"city": "Ulm", "days": [1, 2', {"city": "Ulm", "days": [1, 2]})],
)  # fmt: skip
def test_of_a_call_that_is_cut_off_the_complete_arguments_are_there(
    arguments: str, complete: dict[str, Any]
) -> None:
    """As in the snapshots that Anthropic's client makes of a stream, which is read by the same parser."""
    pieces = [Segment("arguments", arguments, 0)] if arguments else []
    said = answers.outputs(Segment("call", "add", 0), *pieces, reason="length")
    events, whole = asyncio.run(written(said))
    assert (whole["content"][0]["input"], whole["stop_reason"]) == (complete, "max_tokens")
    deltas = [event["delta"] for event in events if event["type"] == "content_block_delta"]
    assert "".join(one["partial_json"] for one in deltas) == arguments
    assert events[-2]["delta"]["stop_reason"] == "max_tokens"


def test_an_empty_answer_has_no_blocks() -> None:
    events, whole = asyncio.run(written(outputs()))
    assert gathered(events) == whole["content"] == []


@pytest.mark.parametrize(
    ("error", "status", "kind"),
    [
        (BadRequest("wrong", param="x"), 400, "invalid_request_error"),
        (ContextOverflow(9, 4), 400, "invalid_request_error"),
        (Busy("later"), 503, "overloaded_error"),
        (KeyError("bug"), 500, "api_error"),
    ],
)
def test_errors_have_their_form(error: Exception, status: int, kind: str) -> None:
    found, body = error_message(error)
    assert (found, body["type"], body["error"]["type"]) == (status, "error", kind)  # type: ignore[index]


def test_a_prompt_that_is_too_long_is_refused_in_the_words_that_agents_look_for() -> None:
    _, body = error_message(ContextOverflow(9000, 4096))
    message = body["error"]["message"]  # type: ignore[index]
    assert (
        message
        == "prompt is too long: 9000 tokens > 4096 maximum; shorten it or use a larger context (--ctx 10240)"
    )
