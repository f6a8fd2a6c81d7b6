"""pydantic-ai: an agent with its defaults (output by a tool), tools that run, and streams; over chat completions and responses."""

from typing import Any, Literal

import pytest
from pydantic import BaseModel
from pydantic_ai import Agent, NativeOutput
from pydantic_ai.models.openai import OpenAIChatModel, OpenAIResponsesModel
from pydantic_ai.providers.openai import OpenAIProvider

GREEDY: Any = {"max_tokens": 20, "temperature": 0}


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
    assert isinstance(Agent(served, output_type=Trip, retries=0).run_sync("Book a trip.").output, Trip)


def test_output_by_schema(served: Any) -> None:
    agent = Agent(served, output_type=NativeOutput(Trip), retries=0)
    assert isinstance(agent.run_sync("Book a trip.").output, Trip)


def test_a_tool_runs(served: Any) -> None:
    """With an output type the model has to call something each time, so that the run is certain to end in calls."""
    agent = Agent(served, output_type=Trip, retries=0)
    asked: list[str] = []

    @agent.tool_plain
    def get_weather(city: Literal["Bern", "Oslo"]) -> str:
        """Get the weather of a city."""
        asked.append(city)
        return f"It rains in {city}."

    try:
        done = agent.run_sync("Will it rain?", usage_limits=None)
    except Exception as error:  # a model as small may ask for the weather for ever
        assert "limit" in str(error), error
    else:
        assert isinstance(done.output, Trip)
    assert set(asked) <= {"Bern", "Oslo"}


async def _streamed(agent: Any) -> str:
    async with agent.run_stream("What is the capital of France?") as answer:
        pieces = [piece async for piece in answer.stream_text(delta=True)]
    return "".join(pieces)


def test_a_stream(served: Any) -> None:
    import asyncio

    agent = Agent(served, model_settings=GREEDY)
    assert "Paris" in asyncio.run(_streamed(agent))
