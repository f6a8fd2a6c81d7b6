"""openai: tools in all modes, whole and streamed, and a whole turn of an agent."""

import json
from typing import Any

import openai
import pytest
from shared import SAY, Trip


def arguments(call: Any) -> dict[str, Any]:
    found = json.loads(call.function.arguments)
    assert found["city"] in ("Bern", "Oslo")
    assert found["days"] in (1, 2, 3)
    return found


@pytest.mark.parametrize("streamed", [False, True])
@pytest.mark.parametrize("mode", ["required", "named"])
def test_a_tool_is_called(
    client: openai.OpenAI, model: str, weather: dict[str, Any], mode: str, streamed: bool
) -> None:
    choice: Any = {"type": "function", "function": {"name": "get_weather"}} if mode == "named" else mode
    with (
        client.chat.completions.stream(
            model=model, messages=SAY, tools=[weather], tool_choice=choice, parallel_tool_calls=False
        )
        if streamed
        else Whole(
            client, model=model, messages=SAY, tools=[weather], tool_choice=choice, parallel_tool_calls=False
        ) as answer
    ):
        done = answer.get_final_completion()
    (call,) = done.choices[0].message.tool_calls
    assert (call.type, call.function.name) == ("function", "get_weather")
    assert call.id
    arguments(call)
    assert done.choices[0].finish_reason == "tool_calls"
    assert not done.choices[0].message.content


class Whole:
    """An answer that was not streamed, with the methods of one that was."""

    def __init__(self, client: openai.OpenAI, **body: Any) -> None:
        self._done = client.chat.completions.create(**body)

    def __enter__(self) -> "Whole":
        return self

    def __exit__(self, *_: object) -> None:
        pass

    def get_final_completion(self) -> Any:
        return self._done


def test_deltas_of_a_tool_call_are_as_openai_sends_them(
    client: openai.OpenAI, model: str, weather: dict[str, Any]
) -> None:
    stream = client.chat.completions.create(
        model=model,
        messages=SAY,
        tools=[weather],
        tool_choice="required",
        stream=True,
        parallel_tool_calls=False,
    )
    deltas = [call for chunk in stream if chunk.choices for call in chunk.choices[0].delta.tool_calls or ()]
    opening = [delta for delta in deltas if delta.id]
    assert len({delta.index for delta in opening}) == len(opening)  # the id comes once for each call
    assert all(delta.function.name == "get_weather" for delta in opening)
    assert not [delta for delta in deltas if not delta.id and delta.function.name]
    for one in opening:
        arguments_ = "".join(d.function.arguments or "" for d in deltas if d.index == one.index)
        assert json.loads(arguments_)["city"] in ("Bern", "Oslo")


@pytest.mark.parametrize("mode", ["none", "auto"])
def test_a_tool_may_be_left_alone(
    client: openai.OpenAI, model: str, weather: dict[str, Any], mode: str
) -> None:
    done = client.chat.completions.create(
        model=model, messages=SAY, tools=[weather], tool_choice=mode, max_tokens=40, temperature=0
    )
    message = done.choices[0].message
    if mode == "none" or not message.tool_calls:
        assert message.tool_calls is None
        assert message.content
    else:
        arguments(message.tool_calls[0])


def test_a_whole_turn_of_an_agent(client: openai.OpenAI, model: str, weather: dict[str, Any]) -> None:
    """The call, its result, and the answer to it; the assistant's turn goes back as the client has it."""
    messages: list[Any] = [{"role": "user", "content": "Will it rain in Bern?"}]
    first = client.chat.completions.create(
        model=model, messages=messages, tools=[weather], tool_choice="required", parallel_tool_calls=False
    )
    (call,) = first.choices[0].message.tool_calls
    messages += [
        first.choices[0].message,
        {"role": "tool", "tool_call_id": call.id, "content": json.dumps({"rain": True})},
    ]
    done = client.chat.completions.create(
        model=model, messages=messages, tools=[weather], tool_choice="none", max_tokens=30, temperature=0
    )
    assert done.choices[0].message.content
    assert done.usage.prompt_tokens > first.usage.prompt_tokens


def test_parse_the_arguments_of_a_tool(client: openai.OpenAI, model: str) -> None:
    tool = openai.pydantic_function_tool(Trip, name="book")
    done = client.chat.completions.parse(
        model=model,
        messages=[{"role": "user", "content": "Book a trip."}],
        tools=[tool],
        tool_choice="required",
        parallel_tool_calls=False,
    )
    assert isinstance(done.choices[0].message.tool_calls[0].function.parsed_arguments, Trip)
