"""openai: Responses, whole, streamed, parsed, with tools, and what a server without a store refuses."""

import json
from typing import Any

import openai
import pytest
from shared import SAY, Trip


def test_a_response(client: openai.OpenAI, model: str) -> None:
    done = client.responses.create(
        model=model, input="What is the capital of France?", max_output_tokens=12, temperature=0, store=False
    )
    assert "Paris" in done.output_text
    assert done.status in ("completed", "incomplete")
    assert done.usage.total_tokens == done.usage.input_tokens + done.usage.output_tokens


def test_a_response_is_streamed_as_it_is_whole(client: openai.OpenAI, model: str) -> None:
    body: Any = {"model": model, "input": SAY, "max_output_tokens": 8, "temperature": 0, "top_logprobs": 1}
    whole = client.responses.create(**body)
    with client.responses.stream(**body) as stream:
        events = list(stream)
        done = stream.get_final_response()
    assert done.output_text == whole.output_text
    assert done.status == whole.status
    assert [event.sequence_number for event in events] == list(range(len(events)))
    kinds = list(dict.fromkeys(event.type for event in events))
    assert kinds == [
        "response.created",
        "response.in_progress",
        "response.output_item.added",
        "response.content_part.added",
        "response.output_text.delta",
        "response.output_text.done",
        "response.content_part.done",
        "response.output_item.done",
        f"response.{whole.status}",
    ]
    assert len(whole.output[0].content[0].logprobs) == whole.usage.output_tokens


def test_a_response_that_is_parsed(client: openai.OpenAI, model: str) -> None:
    done = client.responses.parse(model=model, input="Plan a trip.", text_format=Trip)
    assert isinstance(done.output_parsed, Trip)


@pytest.mark.parametrize("streamed", [False, True])
def test_a_response_that_calls_a_tool(
    client: openai.OpenAI, model: str, weather: dict[str, Any], streamed: bool
) -> None:
    """The call, its result, and the answer to it, without anything stored."""
    tool: Any = {"type": "function", **weather["function"], "strict": True}
    asked: list[Any] = [{"role": "user", "content": "Will it rain in Bern?"}]
    body: Any = {"model": model, "tools": [tool], "parallel_tool_calls": False, "store": False}
    if streamed:
        with client.responses.stream(**body, input=asked, tool_choice="required") as stream:
            kinds = [event.type for event in stream]
            first = stream.get_final_response()
        assert "response.function_call_arguments.delta" in kinds
        assert "response.function_call_arguments.done" in kinds
    else:
        named = {"type": "function", "name": "get_weather"}
        first = client.responses.create(**body, input=asked, tool_choice=named)
    (call,) = [item for item in first.output if item.type == "function_call"]
    assert call.name == "get_weather"
    assert json.loads(call.arguments)["city"] in ("Bern", "Oslo")
    asked += [item.model_dump(exclude_none=True) for item in first.output]
    asked += [{"type": "function_call_output", "call_id": call.call_id, "output": "It rains."}]
    done = client.responses.create(
        **body, input=asked, tool_choice="none", max_output_tokens=16, instructions="Be brief."
    )
    assert done.output_text


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("previous_response_id", "resp_1"),
        ("conversation", "conv_1"),
        ("background", True),
        ("tools", [{"type": "web_search"}]),
        ("input", [{"type": "item_reference", "id": "msg_1"}]),
    ],
)
def test_a_response_that_needs_a_store_or_built_in_tools_is_refused(
    client: openai.OpenAI, model: str, field: str, value: Any
) -> None:
    with pytest.raises(openai.BadRequestError) as caught:
        client.responses.create(**{"model": model, "input": "Hi", field: value})
    assert caught.value.param.startswith(field)
