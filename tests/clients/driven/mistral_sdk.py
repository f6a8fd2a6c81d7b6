"""mistralai: chat, streams, tools, structured output, models."""

import json
from collections.abc import Iterator
from typing import Any, Literal

import pytest
from mistralai.client import Mistral
from mistralai.client.errors import SDKError
from pydantic import BaseModel

SAY = [{"role": "user", "content": "What is the capital of France?"}]


class Trip(BaseModel):
    """What an answer is parsed into."""

    city: Literal["Bern", "Oslo"]
    nights: Literal[1, 2, 3]


@pytest.fixture(scope="module")
def client(url: str, key: str) -> Iterator[Mistral]:
    with Mistral(api_key=key, server_url=url.removesuffix("/v1")) as client:
        yield client


def test_chat(client: Mistral, model: str) -> None:
    done = client.chat.complete(model=model, messages=SAY, max_tokens=12, temperature=0, random_seed=3)
    assert "Paris" in done.choices[0].message.content
    assert done.usage.completion_tokens <= 12


def test_stream(client: Mistral, model: str) -> None:
    with client.chat.stream(model=model, messages=SAY, max_tokens=12, temperature=0) as stream:
        chunks = [event.data for event in stream]
    assert "Paris" in "".join(chunk.choices[0].delta.content or "" for chunk in chunks if chunk.choices)


@pytest.mark.parametrize("choice", ["any", "required", "named"])
def test_tools(client: Mistral, model: str, weather: dict[str, Any], choice: str) -> None:
    named = {"type": "function", "function": {"name": "get_weather"}}
    messages: list[Any] = list(SAY)
    first = client.chat.complete(
        model=model,
        messages=messages,
        tools=[weather],
        tool_choice=named if choice == "named" else choice,
        parallel_tool_calls=False,
    )
    message = first.choices[0].message
    call = message.tool_calls[0]
    assert call.function.name == "get_weather"
    assert json.loads(call.function.arguments)["city"] in ("Bern", "Oslo")
    assert first.choices[0].finish_reason == "tool_calls"
    for one in message.tool_calls:
        messages.append({"role": "tool", "tool_call_id": one.id, "name": "get_weather", "content": "rain"})
    messages.insert(1, message)
    done = client.chat.complete(
        model=model, messages=messages, tools=[weather], tool_choice="none", max_tokens=8
    )
    assert done.choices[0].message.content


def test_tools_in_a_stream(client: Mistral, model: str, weather: dict[str, Any]) -> None:
    with client.chat.stream(
        model=model, messages=SAY, tools=[weather], tool_choice="any", parallel_tool_calls=False
    ) as stream:
        chunks = [event.data for event in stream]
    calls = [call for chunk in chunks for choice in chunk.choices for call in choice.delta.tool_calls or ()]
    assert [call.function.name for call in calls if call.function.name]
    assert [choice.finish_reason for chunk in chunks for choice in chunk.choices][-1] == "tool_calls"


def test_parse_into_a_pydantic_model(client: Mistral, model: str) -> None:
    done = client.chat.parse(
        Trip, model=model, messages=[{"role": "user", "content": "Plan a trip."}], max_tokens=60
    )
    assert isinstance(done.choices[0].message.parsed, Trip)


def test_models(client: Mistral, model: str) -> None:
    found = client.models.list()
    (card,) = found.data
    assert card.id.startswith(model)
    assert card.capabilities.completion_chat
    assert card.max_context_length == 2048
    assert client.models.retrieve(model_id=card.id).id == card.id


def test_an_error_is_raised_with_its_sentence(client: Mistral, model: str) -> None:
    with pytest.raises(SDKError, match="temperature"):
        client.chat.complete(model=model, messages=SAY, temperature=-1)
