"""openai: chat, streams, tools, structured output, log-probabilities, completions, models and every error class."""

import json
from collections.abc import Iterator
from typing import Any, Literal

import openai
import pytest
from pydantic import BaseModel

SAY = [{"role": "user", "content": "What is the capital of France?"}]


class Trip(BaseModel):
    """What an answer is parsed into."""

    city: Literal["Bern", "Oslo"]
    nights: Literal[1, 2, 3]


@pytest.fixture(scope="module")
def client(url: str, key: str) -> Iterator[openai.OpenAI]:
    with openai.OpenAI(base_url=url, api_key=key, max_retries=0) as client:
        yield client


def arguments(call: Any) -> dict[str, Any]:
    found = json.loads(call.function.arguments)
    assert found["city"] in ("Bern", "Oslo")
    assert found["days"] in (1, 2, 3)
    return found


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


# tools


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


# responses


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
        ("store", True),
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


# other endpoints


def test_completions(client: openai.OpenAI, model: str) -> None:
    done = client.completions.create(
        model=model, prompt="The capital of France is", max_tokens=6, temperature=0
    )
    assert done.object == "text_completion"
    assert "Paris" in done.choices[0].text
    stream = client.completions.create(
        model=model, prompt="The capital of France is", max_tokens=6, temperature=0, stream=True
    )
    assert "".join(chunk.choices[0].text for chunk in stream if chunk.choices) == done.choices[0].text


def test_completions_of_several_prompts_with_echo_and_log_probabilities(
    client: openai.OpenAI, model: str
) -> None:
    prompts = ["The capital of France is", "The capital of Italy is"]
    done = client.completions.create(
        model=model, prompt=prompts, max_tokens=3, temperature=0, echo=True, logprobs=1
    )
    for choice, prompt in zip(done.choices, prompts, strict=True):
        assert choice.text.startswith(prompt)
        assert len(choice.logprobs.tokens) == len(choice.logprobs.token_logprobs)


def test_models(client: openai.OpenAI, model: str) -> None:
    (found,) = client.models.list()
    assert found.id.startswith(model)
    assert client.models.retrieve(found.id).id == found.id


def test_embeddings_are_refused_for_a_chat_model(client: openai.OpenAI, model: str) -> None:
    with pytest.raises(openai.APIStatusError) as caught:
        client.embeddings.create(model=model, input="a text")
    assert caught.value.status_code in (400, 404, 501)
    assert caught.value.body["message"]


# errors


def test_a_field_out_of_bounds_is_a_bad_request(client: openai.OpenAI, model: str) -> None:
    with pytest.raises(openai.BadRequestError) as caught:
        client.chat.completions.create(model=model, messages=SAY, temperature=-1)
    assert caught.value.param == "temperature"
    assert caught.value.type == "invalid_request_error"


def test_an_image_is_refused_by_name(client: openai.OpenAI, model: str) -> None:
    part = {"type": "image_url", "image_url": {"url": "data:image/png;base64,AAAA"}}
    with pytest.raises(openai.BadRequestError, match="image"):
        client.chat.completions.create(model=model, messages=[{"role": "user", "content": [part]}])


def test_a_prompt_that_is_too_long(client: openai.OpenAI, model: str) -> None:
    with pytest.raises(openai.BadRequestError) as caught:
        client.chat.completions.create(
            model=model, messages=[{"role": "user", "content": "word " * 4000}], max_tokens=4
        )
    assert caught.value.code == "context_length_exceeded"


def test_a_wrong_key_is_an_authentication_error(client: openai.OpenAI, model: str) -> None:
    stranger = client.with_options(api_key="sk-of-somebody-else")
    with pytest.raises(openai.AuthenticationError):
        stranger.chat.completions.create(model=model, messages=SAY)


def test_what_is_not_there_is_not_found(client: openai.OpenAI) -> None:
    with pytest.raises(openai.NotFoundError):
        client.models.retrieve("another-model")
    with pytest.raises(openai.NotFoundError):
        client.images.generate(prompt="a lamp", model="demo")


def test_an_idempotency_key_belongs_to_one_body(client: openai.OpenAI, model: str) -> None:
    named = {"Idempotency-Key": "one-name"}
    body = {"model": model, "messages": SAY, "max_tokens": 3, "extra_headers": named}
    assert client.chat.completions.create(**body).id == client.chat.completions.create(**body).id
    with pytest.raises(openai.ConflictError):
        client.chat.completions.create(**{**body, "max_tokens": 4})


def test_a_server_that_is_not_there_is_a_connection_error() -> None:
    nowhere = openai.OpenAI(base_url="http://127.0.0.1:1/v1", api_key="-", max_retries=0)
    with pytest.raises(openai.APIConnectionError):
        nowhere.models.list()


def test_a_client_that_does_not_wait(client: openai.OpenAI, model: str) -> None:
    with pytest.raises(openai.APITimeoutError):
        client.with_options(timeout=0.001).chat.completions.create(model=model, messages=SAY)


def test_every_answer_has_the_id_of_its_request(client: openai.OpenAI, model: str) -> None:
    done = client.chat.completions.create(model=model, messages=SAY, max_tokens=1)
    assert done._request_id
    with pytest.raises(openai.BadRequestError) as caught:
        client.chat.completions.create(model=model, messages=SAY, temperature=-1)
    assert caught.value.request_id
