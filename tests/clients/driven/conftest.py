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
# tests with tools that were not run to their end yet, by clients other than openai and anthropic
UNPROVED = re.compile(
    r"tool|responses|Responses|parse_the|function_calling|other_modes|its_defaults$|partial|"
    r"by_default\[mistral|by_default\[.*Chat|runs|test_structured_output$"
)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        ours = item.path.parent == Path(__file__).parent
        if ours and item.path.stem not in ("openai_sdk", "anthropic_sdk") and UNPROVED.search(item.name):
            item.add_marker(pytest.mark.xfail(reason="not proved with tools yet", run=False))


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
