"""openai: chat, streams, choices, structured output and log-probabilities."""

import json

import openai
import pytest
from shared import SAY, Trip


def test_chat(client: openai.OpenAI, model: str) -> None:
    done = client.chat.completions.create(model=model, messages=SAY, max_tokens=12, temperature=0)
    (choice,) = done.choices
    assert done.object == "chat.completion"
    assert choice.message.role == "assistant"
    assert "Paris" in choice.message.content
    assert choice.finish_reason in ("stop", "length")
    assert done.usage.total_tokens == done.usage.prompt_tokens + done.usage.completion_tokens


def test_stream(client: openai.OpenAI, model: str) -> None:
    stream = client.chat.completions.create(
        model=model,
        messages=SAY,
        max_tokens=8,
        temperature=0,
        stream=True,
        stream_options={"include_usage": True},
    )
    chunks = list(stream)
    assert len({chunk.id for chunk in chunks}) == len({chunk.created for chunk in chunks}) == 1
    assert "Paris" in "".join(chunk.choices[0].delta.content or "" for chunk in chunks if chunk.choices)
    assert [chunk.choices[0].finish_reason for chunk in chunks if chunk.choices][-1] in ("stop", "length")
    assert chunks[-1].usage.completion_tokens <= 8


def test_the_stream_helper_gathers_a_whole_answer(client: openai.OpenAI, model: str) -> None:
    with client.chat.completions.stream(model=model, messages=SAY, max_tokens=8, temperature=0) as stream:
        kinds = {event.type for event in stream}
        done = stream.get_final_completion()
    assert {"chunk", "content.delta", "content.done"} <= kinds
    assert "Paris" in done.choices[0].message.content


@pytest.mark.parametrize("field", ["max_tokens", "max_completion_tokens"])
def test_the_length_is_limited_by_its_old_and_its_new_name(
    client: openai.OpenAI, model: str, field: str
) -> None:
    done = client.chat.completions.create(model=model, messages=SAY, temperature=0, **{field: 2})
    assert done.choices[0].finish_reason == "length"
    assert done.usage.completion_tokens == 2


def test_developer_messages_and_parts(client: openai.OpenAI, model: str) -> None:
    messages = [
        {"role": "developer", "content": "You are brief."},
        {"role": "user", "content": [{"type": "text", "text": "What is the capital of France?"}]},
    ]
    done = client.chat.completions.create(model=model, messages=messages, max_tokens=8, temperature=0)
    assert done.choices[0].message.content


def test_choices(client: openai.OpenAI, model: str) -> None:
    done = client.chat.completions.create(model=model, messages=SAY, n=3, max_tokens=4, seed=1)
    assert [choice.index for choice in done.choices] == [0, 1, 2]
    assert all(choice.message.content for choice in done.choices)
    stream = client.chat.completions.create(model=model, messages=SAY, n=2, max_tokens=4, stream=True)
    texts = ["", ""]
    for chunk in stream:
        for choice in chunk.choices:
            texts[choice.index] += choice.delta.content or ""
    assert all(texts)


def test_log_probabilities(client: openai.OpenAI, model: str) -> None:
    done = client.chat.completions.create(
        model=model, messages=SAY, max_tokens=4, temperature=0, logprobs=True, top_logprobs=3
    )
    content = done.choices[0].logprobs.content
    assert len(content) == done.usage.completion_tokens
    for token in content:
        assert token.logprob <= 0
        assert len(token.top_logprobs) == 3
        assert token.top_logprobs[0].token == token.token  # the most likely one was chosen


def test_stop(client: openai.OpenAI, model: str) -> None:
    done = client.chat.completions.create(
        model=model, messages=SAY, max_tokens=20, temperature=0, stop=["Paris"]
    )
    assert done.choices[0].finish_reason == "stop"
    assert "Paris" not in done.choices[0].message.content


def test_json_schema(client: openai.OpenAI, model: str) -> None:
    schema = Trip.model_json_schema() | {"additionalProperties": False}
    done = client.chat.completions.create(
        model=model,
        messages=[{"role": "user", "content": "Plan a trip."}],
        response_format={
            "type": "json_schema",
            "json_schema": {"name": "trip", "schema": schema, "strict": True},
        },
    )
    Trip.model_validate_json(done.choices[0].message.content)


def test_json_object(client: openai.OpenAI, model: str) -> None:
    done = client.chat.completions.create(
        model=model,
        messages=[{"role": "user", "content": "Answer with one short JSON object."}],
        response_format={"type": "json_object"},
        max_tokens=200,
        temperature=0,
    )
    if done.choices[0].finish_reason == "stop":
        assert isinstance(json.loads(done.choices[0].message.content), dict)
    else:
        assert done.choices[0].message.content.lstrip().startswith("{")


def test_parse_into_a_pydantic_model(client: openai.OpenAI, model: str) -> None:
    done = client.chat.completions.parse(
        model=model, messages=[{"role": "user", "content": "Plan a trip."}], response_format=Trip
    )
    assert isinstance(done.choices[0].message.parsed, Trip)
