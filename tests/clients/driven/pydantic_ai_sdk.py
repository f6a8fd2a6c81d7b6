"""pydantic-ai: an agent with its defaults (output by a tool), tools that run, and streams; over chat completions and responses."""

import asyncio
from typing import Any, Literal

import pytest
from pydantic import BaseModel
from pydantic_ai import Agent, NativeOutput
from pydantic_ai.capabilities import PrepareOutputTools
from pydantic_ai.models.openai import OpenAIChatModel, OpenAIResponsesModel
from pydantic_ai.providers.openai import OpenAIProvider

GREEDY: Any = {"max_tokens": 20, "temperature": 0}
ONE_CALL: Any = {"max_tokens": 60, "temperature": 0, "parallel_tool_calls": False}


class Trip(BaseModel):
    """Book a trip."""

    city: Literal["Bern", "Oslo"]
    nights: Literal[1, 2, 3]


@pytest.fixture(params=[OpenAIChatModel, OpenAIResponsesModel])
def served(request: pytest.FixtureRequest, url: str, key: str, model: str) -> Any:
    return request.param(model, provider=OpenAIProvider(base_url=url, api_key=key))


def test_text(served: Any) -> None:
    agent = Agent(served, instructions="You are brief.", model_settings=GREEDY)
    done = agent.run_sync("What is the capital of France?")
    assert done.output
    assert done.usage.output_tokens <= 20


def test_output_by_default(served: Any) -> None:
    agent = Agent(served, output_type=Trip, retries=0, model_settings=ONE_CALL)
    assert isinstance(agent.run_sync("Book a trip.").output, Trip)


def test_output_by_schema(served: Any) -> None:
    agent = Agent(served, output_type=NativeOutput(Trip), retries=0, model_settings=GREEDY)
    assert isinstance(agent.run_sync("Book a trip.").output, Trip)


def test_a_tool_runs(served: Any) -> None:
    """Only the weather can be called first, and only the output after it, so that the run is certain to end."""
    asked: list[str] = []

    async def after_the_tool(_: Any, tools: list[Any]) -> list[Any]:
        return tools if asked else []

    async def once(_: Any, tool: Any) -> Any:
        return None if asked else tool

    agent = Agent(
        served,
        output_type=Trip,
        retries=0,
        model_settings=ONE_CALL,
        capabilities=[PrepareOutputTools(after_the_tool)],
    )

    @agent.tool_plain(prepare=once)
    def get_weather(city: Literal["Bern", "Oslo"]) -> str:
        """Get the weather of a city."""
        asked.append(city)
        return f"It rains in {city}."

    assert isinstance(agent.run_sync("Will it rain?").output, Trip)
    assert len(asked) == 1
    assert asked[0] in ("Bern", "Oslo")


async def _streamed(agent: Any) -> str:
    async with agent.run_stream("What is the capital of France?") as answer:
        pieces = [piece async for piece in answer.stream_text(delta=True)]
    return "".join(pieces)


def test_a_stream(served: Any) -> None:
    agent = Agent(served, model_settings=GREEDY)
    assert "Paris" in asyncio.run(_streamed(agent))
