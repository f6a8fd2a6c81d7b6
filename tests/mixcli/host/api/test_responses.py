"""OpenAI's Responses as a translation: items into messages, outputs into items and events. Real clients: tests/clients."""

import asyncio
import json
from typing import Any

import pytest

from mixcli.engine.logprobs import TokenLogprobs
from mixcli.engine.sampling import SamplingParams
from mixcli.engine.sequence import Output, Usage
from mixcli.errors import BadRequest, ContextOverflow
from mixcli.host.api.json_body import parsed
from mixcli.host.api.responses_response import ResponsesWriter
from mixcli.host.api.responses_schema import ResponsesRequest
from mixcli.host.call import Call, ChatQuestion
from mixcli.prompts.answer_parser import Segment
from mixcli.prompts.messages import Message
from tests.mixcli.host.api.answers import SEGMENTS, outputs

ADD = {"type": "function", "name": "add"}


def request(**body: Any) -> ResponsesRequest:
    return parsed(ResponsesRequest, json.dumps({"input": "Hi", **body}).encode())


def test_items_become_messages() -> None:
    """What an answer brought goes back as it came: reasoning, text and calls are one turn of the model."""
    made = request(
        instructions="Be brief.",
        input=[
            {"role": "user", "content": [{"type": "input_text", "text": "1+2?"}]},
            {
                "type": "reasoning",
                "id": "rs_1",
                "summary": [],
                "content": [{"type": "reasoning_text", "text": "hm"}],
            },
            {
                "type": "function_call",
                "id": "fc_1",
                "call_id": "aaaaaaaaa",
                "name": "add",
                "arguments": "{}",
                "status": "completed",
            },
            {"type": "function_call", "call_id": "bbbbbbbbb", "name": "now", "arguments": "{}"},
            {"type": "function_call_output", "call_id": "aaaaaaaaa", "output": "3"},
            {"type": "function_call_output", "call_id": "bbbbbbbbb", "output": "noon"},
            {
                "type": "message",
                "id": "msg_1",
                "status": "completed",
                "role": "assistant",
                "content": [{"type": "output_text", "text": "3", "annotations": [], "logprobs": []}],
            },
            {"role": "assistant", "content": "Or so."},
        ],
    )
    messages = made._body()["messages"]
    assert isinstance(messages, list)
    assert [one["role"] for one in messages] == [
        "system",
        "user",
        "assistant",
        "tool",
        "tool",
        "assistant",
        "assistant",
    ]
    assert messages[2]["reasoning_content"] == "hm"
    assert [call["id"] for call in messages[2]["tool_calls"]] == ["aaaaaaaaa", "bbbbbbbbb"]


@pytest.mark.parametrize(
    ("body", "said"),
    [
        ({"previous_response_id": "resp_1"}, "previous_response_id is not supported; nothing is stored"),
        ({"text": {"format": {"type": "text", "schema": {"type": "object"}}}}, "the type text has no schema"),
        (
            {"text": {"format": {"type": "json_object", "schema": {"type": "object"}}}},
            "json_object has no schema",
        ),
        ({"tools": [ADD], "tool_choice": {"type": "web_search"}}, "choices of the type web_search"),
        ({"conversation": "c"}, "conversation is not supported"),
        ({"prompt": {"id": "p"}}, "prompt is not supported"),
        ({"tools": [{"type": "web_search"}]}, "tools of the type web_search"),
        ({"tools": [{"type": "mcp", "server_label": "x"}]}, "tools of the type mcp"),
        ({"input": [{"type": "item_reference", "id": "x"}]}, "items of the type item_reference"),
        (
            {"input": [{"role": "user", "content": [{"type": "input_image", "image_url": "x"}]}]},
            "parts of the type input_image",
        ),
        ({"input": []}, "input: it is empty; send a text or at least one item"),
        ({"max_output_tokens": -1}, "max_output_tokens: .* greater than or equal to 1"),
        ({"metadata": {"a": 1}}, "metadata.a"),
        ({"tool_choice": "required"}, "tool_choice is only allowed with tools"),
        ({"tool_choice": {"type": "function", "name": "add"}}, "tool_choice is only allowed with tools"),
        ({"unheard_of": 1}, "unheard_of"),
    ],
)
def test_what_cannot_be_done_is_refused_by_name(body: Any, said: str) -> None:
    with pytest.raises(BadRequest, match=said):
        request(**body).question()


def test_of_a_schema_that_is_not_strict_what_cannot_be_enforced_is_left_to_the_model() -> None:
    form = {"type": "json_schema", "name": "n", "schema": {"type": "array", "uniqueItems": True}}
    assert request(text={"format": {**form, "strict": False}}).question().constraint
    with pytest.raises(BadRequest, match="uniqueItems"):
        request(text={"format": form}).question()


def test_a_request_to_store_is_answered_and_not_stored() -> None:
    """As OpenAI does for customers of which it stores nothing."""
    made = request(store=True)
    assert made.question() == request().question()
    assert ResponsesWriter("resp_1", "m", made, lambda _: [])._response("completed", [])["store"] is False


def test_what_the_model_wrote_between_a_call_and_its_result_is_of_the_same_turn() -> None:
    call = {"type": "function_call", "call_id": "a", "name": "add", "arguments": "{}"}
    thought = {"type": "reasoning", "summary": [], "content": [{"type": "reasoning_text", "text": "hm"}]}
    refusal = {"role": "assistant", "content": [{"type": "refusal", "refusal": "No."}]}
    result = {"type": "function_call_output", "call_id": "a", "output": "3"}
    made = request(
        input=[
            {"role": "user", "content": "1+2?"},
            call,
            {"role": "assistant", "content": "So."},
            thought,
            refusal,
            result,
        ]
    ).question()
    user, turn, answer = made.messages
    assert (turn.content, turn.reasoning, [one.name for one in turn.calls]) == ("So.\n\nNo.", "hm", ["add"])
    assert (user.content, answer.content) == ("1+2?", "3")


@pytest.mark.parametrize(
    ("body", "param"),
    [
        ({"tools": [{"type": "function", "name": "a b"}]}, "tools.0.name"),
        ({"tools": [ADD, ADD]}, "tools.1.name"),
        ({"tools": [{**ADD, "parameters": {"type": "string"}}]}, "tools.0.parameters"),
        ({"tools": [ADD], "tool_choice": {"type": "function", "name": "no"}}, "tool_choice.name"),
    ],
)
def test_a_wrong_field_has_the_name_that_it_has_here(body: Any, param: str) -> None:
    with pytest.raises(BadRequest) as caught:
        request(**body).question()
    assert caught.value.param == param
    assert ".function." not in str(caught.value)


def test_log_probabilities_come_when_they_are_included() -> None:
    assert request().question().top_logprobs is None
    assert request(include=["message.output_text.logprobs"]).question().top_logprobs == 0
    assert request(top_logprobs=2, include=["reasoning.encrypted_content"]).question().top_logprobs == 2


async def written(said: list[Output], **body: Any) -> tuple[list[Any], Any]:
    """Return the events of a stream, and the whole answer."""

    def writer() -> ResponsesWriter:
        return ResponsesWriter(
            "resp_1", "demo", request(**body), lambda tokens: [b"%d" % one for one in tokens], created=5
        )

    call = Call(
        "resp_1",
        ChatQuestion((Message("user", "Hi"),), SamplingParams()),
        asyncio.get_running_loop(),
        outputs=said,
    )
    streamed = writer()
    events = [*streamed.opening([call])]
    for output in said:
        events += streamed.delta(call, output)
        if output.is_last:
            events += streamed.closing(call, output)
    return [*events, *streamed.accounts([call])], writer().whole([call])


@pytest.mark.parametrize(("reason", "status"), [("stop", "completed"), ("length", "incomplete")])
def test_a_stream_says_what_a_whole_answer_says(reason: Any, status: str) -> None:
    events, whole = asyncio.run(written(outputs(*SEGMENTS, reason=reason)))
    assert [event["sequence_number"] for event in events] == list(range(len(events)))
    assert (events[0]["type"], events[-1]["type"]) == ("response.created", f"response.{status}")
    assert events[-1]["response"] == whole
    assert [item["type"] for item in whole["output"]] == [
        "reasoning",
        "message",
        "function_call",
        "function_call",
    ]
    done = [event["item"] for event in events if event["type"] == "response.output_item.done"]
    assert done == whole["output"]
    assert [item["status"] for item in done] == ["completed"] * 3 + [status]
    for i, item in enumerate(whole["output"]):
        deltas = [
            event["delta"]
            for event in events
            if event["type"].endswith(".delta") and event["output_index"] == i
        ]
        assert "".join(deltas) == (item["arguments"] if "arguments" in item else item["content"][0]["text"])


def test_what_labels_a_request_comes_back_and_reasoning_is_counted() -> None:
    said = {"metadata": {"case": "7"}, "service_tier": "flex"}
    _, whole = asyncio.run(written(outputs(*SEGMENTS), **said))
    assert (whole["metadata"], whole["service_tier"]) == ({"case": "7"}, "default")
    assert whole["usage"]["output_tokens_details"] == {"reasoning_tokens": 2}
    _, bare = asyncio.run(written(outputs(*SEGMENTS)))
    assert bare["metadata"] == {} and "service_tier" not in bare


CALL = {"type": "function_call", "call_id": "a", "name": "add", "arguments": "{}"}
RESULT = {"type": "function_call_output", "call_id": "a", "output": "3"}
USER = {"role": "user", "content": "1+2?"}


@pytest.mark.parametrize("instructions", ["", "Be brief."])
@pytest.mark.parametrize(
    ("items", "param"),
    [
        ([USER, {"role": "assistant", "content": "So:"}, CALL, RESULT, RESULT], "input.4.call_id"),
        ([USER, RESULT], "input.1.call_id"),
        ([USER, CALL, CALL, RESULT], "input.2.call_id"),
        ([USER, CALL, {**CALL, "call_id": "b", "name": "a b"}, RESULT], "input.2.name"),
        ([USER, CALL], "input"),
    ],
)
def test_a_wrong_item_is_named_by_its_place(items: list[Any], param: str, instructions: str) -> None:
    with pytest.raises(BadRequest) as caught:
        request(input=items, instructions=instructions).question()
    assert caught.value.param == param
    assert "messages" not in str(caught.value) and "tool_call" not in str(caught.value)


def test_an_input_that_is_too_long_has_its_own_name() -> None:
    with pytest.raises(ContextOverflow) as caught, request().named_as_sent():
        raise ContextOverflow(9, 4)
    assert caught.value.param == "input"


def test_each_text_has_the_log_probabilities_of_its_tokens_alone() -> None:
    said: list[Segment | None] = [Segment("reasoning", "hm"), None, Segment("content", "I"), Segment("call", "add", 0), Segment("arguments", "{}", 0), Segment("content", "So"), Segment("content", ".")]  # fmt: skip
    made = [
        Output("id", "", (i,), segments=(one,) if one else (), logprobs=(TokenLogprobs(i, -1.0, ()),))
        for i, one in enumerate(said)
    ]
    events, whole = asyncio.run(written([*made, Output("id", "", (), "stop", Usage(9, 4, 7, 0, 0, 0))]))
    assert events[-1]["response"] == whole
    texts = [item["content"][0] for item in whole["output"] if item["type"] == "message"]
    assert [[one["token"] for one in text["logprobs"]] for text in texts] == [["1", "2"], ["5", "6"]]
    for i, text in ((1, texts[0]), (3, texts[1])):
        deltas = [
            event
            for event in events
            if event["type"] == "response.output_text.delta" and event["output_index"] == i
        ]
        assert [one for event in deltas for one in event["logprobs"]] == text["logprobs"]


def test_a_stream_that_breaks_ends_with_the_error() -> None:
    events = [
        *ResponsesWriter("resp_1", "demo", request(), lambda _tokens: []).failure(BadRequest("no", param="x"))
    ]
    assert [event["type"] for event in events] == ["error", "response.failed"]
    assert events[0]["message"] == "no"
