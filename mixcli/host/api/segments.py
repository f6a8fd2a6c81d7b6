"""Reasoning and tool calls in chat completions, as OpenAI and DeepSeek write them: of whole answers, and of a stream's events."""

from collections.abc import Callable, Iterator, Sequence

from mixcli.host.api.events import JsonObject
from mixcli.prompts.answer_parser import Segment

IdOf = Callable[[int], str]  # the id of an answer's call, by its place


def deltas(segments: Sequence[Segment], id_of: IdOf) -> Iterator[JsonObject]:
    """Yield a delta for each segment: a call begins with its id, its name and empty arguments, which come piece by piece."""
    for one in segments:
        if one.kind == "content":
            yield {"content": one.text}
        elif one.kind == "reasoning":
            yield {"reasoning_content": one.text}
        elif one.kind == "call":
            yield {"tool_calls": [{"index": one.index, **_call(id_of(one.index), one.text, "")}]}
        else:
            yield {"tool_calls": [{"index": one.index, "function": {"name": "", "arguments": one.text}}]}


def message(text: str, segments: Sequence[Segment], id_of: IdOf) -> JsonObject:
    """Return the message of a whole answer; its content is null where there are only calls."""
    reasoning = "".join(one.text for one in segments if one.kind == "reasoning")
    names = [one.text for one in segments if one.kind == "call"]
    calls = [
        _call(
            id_of(i), name, "".join(one.text for one in segments if (one.kind, one.index) == ("arguments", i))
        )
        for i, name in enumerate(names)
    ]
    found: JsonObject = {"role": "assistant", "content": text or None if calls else text, "refusal": None}
    if reasoning:
        found["reasoning_content"] = reasoning
    return {**found, "tool_calls": calls} if calls else found


def finish_reason(reason: str | None, segments: Sequence[Segment]) -> str | None:
    """Return why an answer ended, in OpenAI's words."""
    return "tool_calls" if reason == "stop" and any(one.kind == "call" for one in segments) else reason


def _call(call_id: str, name: str, arguments: str) -> JsonObject:
    return {"id": call_id, "type": "function", "function": {"name": name, "arguments": arguments}}


__all__ = ["IdOf", "deltas", "finish_reason", "message"]
