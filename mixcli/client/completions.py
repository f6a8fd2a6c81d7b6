"""Parse chat completions of any server, whole or streamed, with their usual deviations."""

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

from mixcli.errors import MixcliError


@dataclass(frozen=True)
class Delta:
    """A piece of an answer; `finish_reason`, `usage`, `timings`, `token_ids` and `label_probs` come with the last ones.

    While a long prompt is read, deltas without text bring `prompt_progress` (total, cache and processed tokens, time_ms);
    `dropped_messages` counts what was left out so that the conversation fits into the context.
    """

    text: str
    finish_reason: str | None = None
    usage: dict[str, Any] = field(default_factory=dict)
    timings: dict[str, Any] = field(default_factory=dict)
    token_ids: tuple[int, ...] = ()
    prompt_progress: dict[str, Any] = field(default_factory=dict)
    dropped_messages: int = 0
    label_probs: dict[str, float] = field(default_factory=dict)


def delta_of(event: dict[str, Any]) -> Delta:
    """Read one event of a stream, or a whole answer; what a server leaves out, or writes in another type, is empty."""
    choices = event.get("choices")
    choice = _dict(choices[0]) if isinstance(choices, list) and choices else {}
    if choice.get("index") not in (None, 0):
        choice = {}  # of a second answer that was not asked for
    said = choice.get("delta") or choice.get("message")
    reason = choice.get("finish_reason") or ("stop" if isinstance(choice.get("message"), dict) else None)
    ids = choice.get("token_ids") or event.get("token_ids")
    dropped = event.get("dropped_messages")
    return Delta(
        content_text(said.get("content") if isinstance(said, dict) else choice.get("text")),
        reason if isinstance(reason, str) and reason else None,
        _dict(event.get("usage")),
        _dict(event.get("timings")),
        tuple(ids) if isinstance(ids, list) and all(isinstance(token, int) for token in ids) else (),
        _dict(event.get("prompt_progress")),
        dropped if isinstance(dropped, int) else 0,
        {
            str(label): value
            for label, value in _dict(choice.get("label_probs")).items()
            if isinstance(value, int | float)
        },
    )


def completion_of(deltas: Iterable[Delta]) -> dict[str, Any]:
    """Return the whole answer of a stream, as a chat completion object."""
    pieces = list(deltas)
    choice: dict[str, Any] = {
        "index": 0,
        "message": {"role": "assistant", "content": "".join(delta.text for delta in pieces)},
        "finish_reason": next((one.finish_reason for one in reversed(pieces) if one.finish_reason), "stop"),
    }
    if label_probs := next((one.label_probs for one in reversed(pieces) if one.label_probs), None):
        choice["label_probs"] = label_probs
    usage = next((one.usage for one in reversed(pieces) if one.usage), {})
    return {"object": "chat.completion", "choices": [choice], "usage": usage}


def content_text(content: Any) -> str:
    """Return the text of a message's content: a text, nothing, or a list of parts of which those of text count."""
    if content is None:
        return ""
    if isinstance(content, str):
        return content
    if isinstance(content, list):
        parts = (part.get("text") if isinstance(part, dict) else part for part in content)
        return "".join(part for part in parts if isinstance(part, str))
    raise MixcliError(
        f"the content of the server's answer is a JSON {type(content).__name__}; a string is expected"
    )


def _dict(value: Any) -> dict[str, Any]:
    return value if isinstance(value, dict) else {}


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


__all__ = ["Delta", "Halves", "completion_of", "content_text", "delta_of"]
