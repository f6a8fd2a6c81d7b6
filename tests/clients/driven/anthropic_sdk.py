"""anthropic: messages, streams, tools, structured output, counting tokens and errors."""

from collections.abc import Iterator
from typing import Any, Literal

import anthropic
import pytest
from pydantic import BaseModel

GREEDY: Any = {"extra_body": {"temperature": 0}}  # the class has no name for it any more
SAY: Any = [{"role": "user", "content": "What is the capital of France?"}]


class Trip(BaseModel):
    """What an answer is parsed into."""

    city: Literal["Bern", "Oslo"]
    nights: Literal[1, 2, 3]


@pytest.fixture(scope="module")
def client(url: str, key: str) -> Iterator[anthropic.Anthropic]:
    with anthropic.Anthropic(base_url=url.removesuffix("/v1"), api_key=key, max_retries=0) as client:
        yield client


@pytest.fixture
def tool(weather: dict[str, Any]) -> Any:
    function = weather["function"]
    described = {"name": function["name"], "description": function["description"]}
    return {**described, "input_schema": function["parameters"]}


def test_messages(client: anthropic.Anthropic, model: str) -> None:
    done = client.messages.create(model=model, max_tokens=12, messages=SAY, **GREEDY)
    (block,) = done.content
    assert (done.type, done.role, block.type) == ("message", "assistant", "text")
    assert "Paris" in block.text
    assert done.stop_reason in ("end_turn", "max_tokens")
    assert 0 < done.usage.output_tokens <= 12
    assert str(done._request_id).startswith("req_")


def test_system_blocks_and_stop_sequences(client: anthropic.Anthropic, model: str) -> None:
    system = [{"type": "text", "text": "Count.", "cache_control": {"type": "ephemeral"}}]
    asked: Any = [
        {"role": "user", "content": [{"type": "text", "text": "Go on."}]},
        {"role": "assistant", "content": "one two three"},
    ]
    done = client.messages.create(
        model=model,
        max_tokens=40,
        system=system,
        messages=asked,
        stop_sequences=["four", "five", "\n"],
        **GREEDY,
    )
    if done.stop_reason == "stop_sequence":
        assert done.stop_sequence in ("four", "five", "\n")
        assert done.stop_sequence not in done.content[0].text if done.content else True
    else:
        assert done.stop_sequence is None


def test_a_stream(client: anthropic.Anthropic, model: str) -> None:
    with client.messages.stream(model=model, max_tokens=12, messages=SAY, **GREEDY) as stream:
        kinds = [event.type for event in stream]
        done = stream.get_final_message()
    assert kinds[0] == "message_start"
    assert kinds[-1] == "message_stop"
    assert kinds.count("content_block_start") == kinds.count("content_block_stop") == 1
    whole = client.messages.create(model=model, max_tokens=12, messages=SAY, **GREEDY)
    assert done.content[0].text == whole.content[0].text
    assert (done.stop_reason, done.usage.output_tokens) == (whole.stop_reason, whole.usage.output_tokens)


def test_raw_events_have_their_names(client: anthropic.Anthropic, model: str) -> None:
    with client.messages.with_streaming_response.create(
        model=model, max_tokens=2, messages=SAY, stream=True
    ) as response:
        lines = [line for line in response.iter_lines() if line.startswith("event:")]
    assert lines[0] == "event: message_start"
    assert "event: ping" in lines
    assert lines[-2:] == ["event: message_delta", "event: message_stop"]


@pytest.mark.parametrize("choice", [{"type": "any"}, {"type": "tool", "name": "get_weather"}])
@pytest.mark.parametrize("streamed", [False, True])
def test_tools(
    client: anthropic.Anthropic, model: str, tool: Any, choice: dict[str, str], streamed: bool
) -> None:
    """The call, its result, and the answer to it."""
    body: Any = {"model": model, "max_tokens": 200, "tools": [tool]}
    asked: list[Any] = [{"role": "user", "content": "Will it rain in Bern?"}]
    only_one = {**choice, "disable_parallel_tool_use": True}
    if streamed:
        with client.messages.stream(**body, messages=asked, tool_choice=only_one) as stream:
            first = stream.get_final_message()
    else:
        first = client.messages.create(**body, messages=asked, tool_choice=only_one)
    assert first.stop_reason == "tool_use"
    (use,) = [block for block in first.content if block.type == "tool_use"]
    assert use.name == "get_weather"
    assert use.input["city"] in ("Bern", "Oslo")
    asked += [
        {"role": "assistant", "content": first.content},
        {"role": "user", "content": [{"type": "tool_result", "tool_use_id": use.id, "content": "It rains."}]},
    ]
    done = client.messages.create(
        **{**body, "max_tokens": 20}, messages=asked, tool_choice={"type": "none"}, **GREEDY
    )
    assert done.content[0].type == "text"
    assert done.usage.input_tokens + done.usage.cache_read_input_tokens > first.usage.input_tokens


def test_a_tool_that_failed(client: anthropic.Anthropic, model: str, tool: Any) -> None:
    asked: list[Any] = [
        {"role": "user", "content": "Will it rain in Bern?"},
        {
            "role": "assistant",
            "content": [
                {"type": "text", "text": "I look."},
                {
                    "type": "tool_use",
                    "id": "toolu_01A",
                    "name": "get_weather",
                    "input": {"city": "Bern", "days": 1},
                },
            ],
        },
        {
            "role": "user",
            "content": [
                {
                    "type": "tool_result",
                    "tool_use_id": "toolu_01A",
                    "content": [{"type": "text", "text": "down"}],
                    "is_error": True,
                },
                {"type": "text", "text": "And now?"},
            ],
        },
    ]
    done = client.messages.create(
        model=model, max_tokens=8, messages=asked, tools=[tool], tool_choice={"type": "none"}
    )
    assert done.content[0].type == "text"


def test_parse_into_a_pydantic_model(client: anthropic.Anthropic, model: str) -> None:
    done = client.messages.parse(
        model=model,
        max_tokens=60,
        messages=[{"role": "user", "content": "Plan a trip."}],
        output_format=Trip,
    )
    assert isinstance(done.parsed_output, Trip)


def test_count_tokens(client: anthropic.Anthropic, model: str) -> None:
    counted = client.messages.count_tokens(model=model, messages=SAY, system="You are brief.")
    done = client.messages.create(model=model, messages=SAY, system="You are brief.", max_tokens=1)
    assert counted.input_tokens == done.usage.input_tokens + done.usage.cache_read_input_tokens


def test_count_tokens_of_tools(client: anthropic.Anthropic, model: str, tool: Any) -> None:
    bare = client.messages.count_tokens(model=model, messages=SAY)
    assert (
        client.messages.count_tokens(model=model, messages=SAY, tools=[tool]).input_tokens > bare.input_tokens
    )


def test_models(client: anthropic.Anthropic, model: str) -> None:
    (found,) = client.models.list()
    assert found.id.startswith(model)
    assert found.display_name == found.id == client.models.retrieve(model).id
    assert found.created_at.year > 2000


def test_errors(client: anthropic.Anthropic, model: str) -> None:
    def refused(kind: type[anthropic.APIStatusError], **body: Any) -> Any:
        with pytest.raises(kind) as caught:
            client.messages.create(**{"model": model, "max_tokens": 4, "messages": SAY, **body})
        assert caught.value.body["type"] == "error"
        return caught.value.body["error"]

    image = {"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": "AAAA"}}
    shown = refused(anthropic.BadRequestError, messages=[{"role": "user", "content": [image]}])
    assert shown["type"] == "invalid_request_error"
    assert "image" in shown["message"]
    assert "temperature" in refused(anthropic.BadRequestError, extra_body={"temperature": -1})["message"]
    assert (
        "bash_20250124"
        in refused(anthropic.BadRequestError, tools=[{"type": "bash_20250124", "name": "bash"}])["message"]
    )
    assert (
        "mcp_servers"
        in refused(anthropic.BadRequestError, extra_body={"mcp_servers": [{"type": "url"}]})["message"]
    )
    long = [{"role": "user", "content": "word " * 4000}]
    assert "context" in refused(anthropic.BadRequestError, messages=long)["message"]


def test_errors_of_the_gate(client: anthropic.Anthropic, model: str) -> None:
    with pytest.raises(anthropic.AuthenticationError) as caught:
        client.with_options(api_key="sk-of-somebody-else").messages.create(
            model=model, max_tokens=4, messages=SAY
        )
    assert caught.value.body["error"]["type"] == "authentication_error"
    with pytest.raises(anthropic.NotFoundError):
        client.models.retrieve("another-model")
