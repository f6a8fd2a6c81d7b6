"""What the tests of all client packages share: where the server is, and questions whose answers are certain.

These files run in an environment of their own, .venv-clients, without mixcli. The demo model is small: what its answers hold is made sure by
schemas, named tools and limits, never by what it knows.
"""

import os
import re
from pathlib import Path
from typing import Any

import pytest

MODEL = "demo"
# what was not run to its end yet
UNPROVED = {
    "instructor_sdk": re.compile(r"PARALLEL"),
    "langchain_sdk": re.compile(r"tools|structured|completions|responses"),
    "litellm_sdk": re.compile(r"tools|text_completion|anthropic"),
    "pydantic_ai_sdk": re.compile(r"output|runs|Responses"),
}


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        unproved = UNPROVED.get(item.path.stem)
        if item.path.parent == Path(__file__).parent and unproved and unproved.search(item.name):
            item.add_marker(pytest.mark.xfail(reason="not proved yet", run=False))


@pytest.fixture(scope="session")
def url() -> str:
    """The address of the server's API, with /v1."""
    return os.environ["MIXCLI_URL"]


@pytest.fixture(scope="session")
def key() -> str:
    """The API key that the server asks for."""
    return os.environ["MIXCLI_KEY"]


@pytest.fixture
def model() -> str:
    return MODEL


@pytest.fixture
def weather() -> dict[str, Any]:
    """A tool, in OpenAI's form; its arguments have few possible values."""
    return {
        "type": "function",
        "function": {
            "name": "get_weather",
            "description": "Get the weather of a city.",
            "parameters": {
                "type": "object",
                "properties": {
                    "city": {"enum": ["Bern", "Oslo"]},
                    "days": {"type": "integer", "minimum": 1, "maximum": 3},
                },
                "required": ["city", "days"],
                "additionalProperties": False,
            },
        },
    }
