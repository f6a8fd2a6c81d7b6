"""litellm: an OpenAI-compatible server, chat, stream, tools, text completion, and Anthropic's form."""

import os
from typing import Any

os.environ["LITELLM_LOCAL_MODEL_COST_MAP"] = "True"  # read the package's own table instead of the network's

import litellm
import pytest

SAY: Any = [{"role": "user", "content": "What is the capital of France?"}]


@pytest.fixture
def server(url: str, key: str, model: str) -> dict[str, Any]:
    return {"model": f"openai/{model}", "api_base": url, "api_key": key, "max_tokens": 12, "num_retries": 0}


def test_chat(server: dict[str, Any]) -> None:
    done = litellm.completion(**server, messages=SAY, temperature=0)
    assert "Paris" in done.choices[0].message.content
    assert done.usage.completion_tokens <= 12


def test_stream(server: dict[str, Any]) -> None:
    chunks = list(litellm.completion(**server, messages=SAY, temperature=0, stream=True))
    assert "Paris" in "".join(chunk.choices[0].delta.content or "" for chunk in chunks)
    assert chunks[-1].choices[0].finish_reason in ("stop", "length")


def test_tools(server: dict[str, Any], weather: dict[str, Any]) -> None:
    done = litellm.completion(
        **{**server, "max_tokens": 60},
        messages=SAY,
        tools=[weather],
        tool_choice="required",
        parallel_tool_calls=False,
    )
    assert done.choices[0].message.tool_calls[0].function.name == "get_weather"
    assert done.choices[0].finish_reason == "tool_calls"


def test_text_completion(server: dict[str, Any], model: str) -> None:
    done = litellm.text_completion(
        **{**server, "model": f"text-completion-openai/{model}"}, prompt="The capital of France is"
    )
    assert done.choices[0].text


def test_anthropic(server: dict[str, Any], url: str, model: str) -> None:
    there = {**server, "model": f"anthropic/{model}", "api_base": url.removesuffix("/v1")}
    assert litellm.completion(**there, messages=SAY, temperature=0).choices[0].message.content


def test_errors_have_their_class(server: dict[str, Any]) -> None:
    with pytest.raises(litellm.BadRequestError):
        litellm.completion(**server, messages=SAY, temperature=-1)
    with pytest.raises(litellm.AuthenticationError):
        litellm.completion(**{**server, "api_key": "sk-of-somebody-else"}, messages=SAY)
