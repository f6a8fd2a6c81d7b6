"""llama-index: OpenAILike with its defaults, which is completions, and as a chat model."""

from typing import Any, Literal

import pytest
from llama_index.core.llms import ChatMessage
from llama_index.core.tools import FunctionTool
from llama_index.llms.openai_like import OpenAILike
from pydantic import BaseModel


class Trip(BaseModel):
    """Book a trip."""

    city: Literal["Bern", "Oslo"]
    nights: Literal[1, 2, 3]


def get_weather(city: Literal["Bern", "Oslo"]) -> str:
    """Get the weather of a city."""
    return f"It rains in {city}."


@pytest.fixture
def like(url: str, key: str, model: str) -> Any:
    """The class with nothing set but where the server is."""
    return OpenAILike(model=model, api_base=url, api_key=key, max_retries=0)


@pytest.fixture
def chat(url: str, key: str, model: str) -> Any:
    return OpenAILike(
        model=model,
        api_base=url,
        api_key=key,
        is_chat_model=True,
        is_function_calling_model=True,
        max_tokens=60,
        max_retries=0,
    )


def test_its_defaults(like: Any) -> None:
    assert "Paris" in like.complete("The capital of France is", max_tokens=8).text
    pieces = [piece.delta for piece in like.stream_complete("The capital of France is", max_tokens=8)]
    assert "Paris" in "".join(pieces)
    assert like.chat([ChatMessage("What is the capital of France?")], max_tokens=12).message.content


def test_chat(chat: Any) -> None:
    asked = [ChatMessage("What is the capital of France?")]
    assert "Paris" in chat.chat(asked).message.content
    assert "Paris" in "".join(piece.delta or "" for piece in chat.stream_chat(asked))


def test_tools(chat: Any) -> None:
    tool = FunctionTool.from_defaults(get_weather)
    answer = chat.chat_with_tools([tool], user_msg="Will it rain?", tool_required=True)
    calls = chat.get_tool_calls_from_response(answer)
    assert calls[0].tool_name == "get_weather"
    assert calls[0].tool_kwargs["city"] in ("Bern", "Oslo")


def test_structured_output(chat: Any) -> None:
    assert isinstance(chat.as_structured_llm(Trip).complete("Book a trip.").raw, Trip)
