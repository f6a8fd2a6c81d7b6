"""Parse chat completions of any server, whole or streamed, with their usual deviations."""

import json
from collections.abc import Iterable
from typing import TYPE_CHECKING

from mixcli.errors import MixcliError
from mixcli.host.protocol.messages import (
    CallDelta,
    Delta,
    Fields,
    PromptProgress,
    Timings,
    TokenUsage,
    count_in,
    counts_in,
    object_of,
)
from mixcli.request.prompt import FunctionCall
from mixcli.system.python_words import json_kind

if TYPE_CHECKING:
    from mixcli.host.protocol.answers import ChatChoice, ChatCompletion


def delta_of(event: Fields) -> Delta:
    """Read one event of a stream, or a whole answer; what a server leaves out, or writes in another type, is empty."""
    choices = event.get("choices")
    choice = object_of(choices[0]) if isinstance(choices, list) and choices else {}
    if choice.get("index") not in (None, 0):
        choice = {}  # of a second answer that was not asked for
    said = choice.get("delta") or choice.get("message")
    reason = choice.get("finish_reason") or ("stop" if isinstance(choice.get("message"), dict) else None)
    ids = choice.get("token_ids") or event.get("token_ids")
    dropped = event.get("dropped_messages")
    usage, timings, progress = (
        object_of(event.get(name)) for name in ("usage", "timings", "prompt_progress")
    )
    return Delta(
        content_text(said.get("content") if isinstance(said, dict) else choice.get("text")),
        reason if isinstance(reason, str) and reason else None,
        counts_in(TokenUsage, usage) if usage else None,
        counts_in(Timings, timings) if timings else None,
        tuple(ids) if isinstance(ids, list) and all(isinstance(token, int) for token in ids) else (),
        counts_in(PromptProgress, progress) if progress else None,
        count_in(dropped),
        {
            label: value
            for label, value in object_of(choice.get("label_probs")).items()
            if isinstance(value, int | float)
        },
        _reasoning(object_of(said)),
        _calls(object_of(said)),
    )


def _reasoning(said: Fields) -> str:
    """Return what a delta has of the reasoning: most servers call it reasoning_content, newer vLLM and OpenRouter reasoning."""
    found = said.get("reasoning_content") or said.get("reasoning")
    return Halves().join(found) if isinstance(found, str) else ""


def _calls(said: Fields) -> tuple[CallDelta, ...]:
    """Return what a delta has of tool calls; servers that send each call whole leave its index out, or its arguments are an object."""
    found = said.get("tool_calls")
    calls = []
    for place, one in enumerate(found if isinstance(found, list) else ()):
        call = object_of(one)
        function = object_of(call.get("function"))
        index, arguments = call.get("index"), function.get("arguments")
        call_id, name = (
            value if isinstance(value, str) else "" for value in (call.get("id"), function.get("name"))
        )
        if isinstance(arguments, dict):
            arguments = json.dumps(arguments, ensure_ascii=False)
        text = arguments if isinstance(arguments, str) else ""
        calls.append(CallDelta(index if isinstance(index, int) else place, call_id, name, text))
    return tuple(calls)


def calls_of(deltas: Iterable[Delta]) -> tuple[FunctionCall, ...]:
    """Return the tool calls of an answer; a piece with the id of another call than its index had begins one of its own."""
    found: list[list[CallDelta]] = []
    ids: dict[int, str] = {}  # the index of a call -> its id
    places: dict[int, int] = {}  # the index of a call -> its place
    for piece in (one for delta in deltas for one in delta.calls):
        if piece.index not in places or (piece.id and ids[piece.index] not in ("", piece.id)):
            places[piece.index], ids[piece.index] = len(found), ""
            found.append([])
        ids[piece.index] = ids[piece.index] or piece.id
        found[places[piece.index]].append(piece)
    return tuple(
        FunctionCall(
            next((one.id for one in pieces if one.id), f"call_{place}"),
            next((one.name for one in pieces if one.name), ""),
            "".join(one.arguments for one in pieces),
        )
        for place, pieces in enumerate(found)
    )


def choice_of(completion: "ChatCompletion") -> "ChatChoice":
    """Read a whole answer; MixcliError if it is not a chat completion."""
    from mixcli.host.protocol.answers import ChatChoice
    from mixcli.request.probability import Probability

    choices = completion.body.get("choices")
    first = choices[0] if isinstance(choices, list) and choices else None
    if not isinstance(first, dict) or not isinstance(first.get("message"), dict):
        raise MixcliError("the server's response is not a chat completion; check the address")
    delta = delta_of(completion.body)
    text = Halves().join(delta.text, is_last=True)
    told = object_of(first.get("field_probs")).items()
    fields = {name: found for name, one in told if (found := Probability.of(one)) is not None}
    return ChatChoice(text, delta.finish_reason or "stop", delta.label_probs, fields)


def completion_of(deltas: Iterable[Delta]) -> "ChatCompletion":
    """Return the whole answer of a stream."""
    from mixcli.host.protocol.answers import ChatCompletion

    pieces = list(deltas)
    message: dict[str, object] = {"role": "assistant", "content": "".join(delta.text for delta in pieces)}
    if calls := calls_of(pieces):
        message["tool_calls"] = [one.to_json() for one in calls]
    choice: dict[str, object] = {
        "index": 0,
        "message": message,
        "finish_reason": next((one.finish_reason for one in reversed(pieces) if one.finish_reason), "stop"),
    }
    if label_probs := next((one.label_probs for one in reversed(pieces) if one.label_probs), None):
        choice["label_probs"] = label_probs
    usage = next((one.usage for one in reversed(pieces) if one.usage), TokenUsage())
    return ChatCompletion({"object": "chat.completion", "choices": [choice], "usage": usage.to_json()})


def content_text(content: object) -> str:
    """Return the text of a message's content: a text, nothing, or a list of parts of which those of text count."""
    if content is None:
        return ""
    if isinstance(content, str):
        return content
    if isinstance(content, list):
        parts = (part.get("text") if isinstance(part, dict) else part for part in content)
        return "".join(part for part in parts if isinstance(part, str))
    raise MixcliError(f"the content of the server's response must be a string, not {json_kind(content)}")


class Halves:
    """Joins characters that a server has cut into halves of a surrogate pair, in two pieces of an answer."""

    def __init__(self) -> None:
        self._half = ""

    def join(self, text: str, *, is_last: bool = False) -> str:
        """Return the text with whole characters; a first half at its end waits for the next piece."""
        text, self._half = self._half + text, ""
        if text and "\ud800" <= text[-1] <= "\udbff" and not is_last:
            text, self._half = text[:-1], text[-1]
        try:
            text.encode()
        except UnicodeEncodeError:
            return text.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace")
        return text


__all__ = ["Halves", "calls_of", "choice_of", "completion_of", "content_text", "delta_of"]
