"""An answer with everything in it: reasoning, text and two calls of tools."""

from typing import Any

from mixcli.engine.sequence import Output, Usage
from mixcli.prompts.answer_parser import Segment

SEGMENTS = (
    Segment("reasoning", "hm"),
    Segment("content", "I "),
    Segment("content", "look."),
    Segment("call", "add", 0),
    Segment("arguments", '{"a":', 0),
    Segment("arguments", "1}", 0),
    Segment("call", "now", 1),
    Segment("arguments", "{}", 1),
)


def end(reason: Any = "stop", stop: str | None = None) -> Output:
    """The last output of an answer."""
    return Output("id", "", (), reason, Usage(9, 4, 3, 0, 0, 0, n_reasoning=2), stop=stop)


def outputs(*segments: Segment, reason: Any = "stop") -> list[Output]:
    """The outputs of an answer, one for each segment, and the last."""
    return [*(Output("id", "", (1,), segments=(one,)) for one in segments), end(reason)]
