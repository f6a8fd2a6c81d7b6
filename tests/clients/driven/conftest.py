"""What the tests of all client packages share: where the server is, and questions whose answers are certain.

These files run in an environment of their own, .venv-clients, without mixcli. The demo model is small: what its answers hold is made sure by
schemas, named tools and limits, never by what it knows.
"""

import os
from collections.abc import Iterator
from typing import Any

import pytest

MODEL = "demo"


@pytest.fixture(scope="session")
def url() -> str:
    """The address of the server's API, with /v1."""
    return os.environ["MIXCLI_URL"]


@pytest.fixture(scope="session")
def key() -> str:
    """The API key that the server asks for."""
    return os.environ["MIXCLI_KEY"]


@pytest.fixture(scope="module")
def client(url: str, key: str) -> Iterator[Any]:
    """OpenAI's client; the files of other packages have one of their own."""
    import openai

    with openai.OpenAI(base_url=url, api_key=key, max_retries=0) as client:
        yield client


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
