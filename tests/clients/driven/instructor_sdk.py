"""instructor, with its defaults (a tool that is named), and its other modes."""

from typing import Any, Literal

import instructor
import openai
import pytest
from pydantic import BaseModel


class Trip(BaseModel):
    """Book a trip."""

    city: Literal["Bern", "Oslo"]
    nights: Literal[1, 2, 3]


ASKED: Any = [{"role": "user", "content": "Book a trip."}]


def made(url: str, key: str, **options: Any) -> Any:
    return instructor.from_openai(openai.OpenAI(base_url=url, api_key=key, max_retries=0), **options)


def test_its_defaults(url: str, key: str, model: str) -> None:
    trip = made(url, key).chat.completions.create(
        model=model, response_model=Trip, messages=ASKED, max_retries=0
    )
    assert isinstance(trip, Trip)


@pytest.mark.parametrize("mode", ["TOOLS", "TOOLS_STRICT", "JSON_SCHEMA", "RESPONSES_TOOLS"])
def test_its_other_modes(url: str, key: str, model: str, mode: str) -> None:
    client = made(url, key, mode=instructor.Mode[mode])
    trip = client.chat.completions.create(model=model, response_model=Trip, messages=ASKED, max_retries=0)
    assert isinstance(trip, Trip)


def test_a_partial_answer_grows(url: str, key: str, model: str) -> None:
    trips = list(
        made(url, key).chat.completions.create_partial(
            model=model, response_model=Trip, messages=ASKED, max_retries=0
        )
    )
    assert trips[-1].city in ("Bern", "Oslo")
    assert trips[-1].nights in (1, 2, 3)
