"""What the files of one package ask, and what they make of an answer."""

from typing import Literal

from pydantic import BaseModel

SAY = [{"role": "user", "content": "What is the capital of France?"}]


class Trip(BaseModel):
    """What an answer is parsed into."""

    city: Literal["Bern", "Oslo"]
    nights: Literal[1, 2, 3]
