"""openai: completions, models, embeddings, and every error class."""

import openai
import pytest
from shared import SAY


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
