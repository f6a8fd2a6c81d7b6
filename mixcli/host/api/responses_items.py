"""Items of OpenAI's Responses, and the chat messages that they are."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Annotated, Literal

from pydantic import BeforeValidator, Field
from pydantic_core import PydanticCustomError

from mixcli.host.api.events import JsonObject
from mixcli.host.api.field_rules import FieldRule, Translated, harmless, only
from mixcli.host.api.message_schema import text_of
from mixcli.host.api.wire_model import WireModel

MAX_PARTS = 1 << 12

ITEM_RULES: Mapping[str, FieldRule] = {
    "id": harmless("OpenAI", "identifies an item to OpenAI"),
    "status": harmless("OpenAI", "marks an item that is complete"),
    "phase": harmless("OpenAI", "marks a part of an answer"),
    "caller": harmless("OpenAI", "marks who called a tool"),
    "namespace": harmless("OpenAI", "marks where a tool came from"),
}
PART_RULES: Mapping[str, FieldRule] = {
    "annotations": harmless("OpenAI", "marks where a text came from"),
    "logprobs": harmless("OpenAI", "belongs to an earlier answer"),
    "parsed": harmless("OpenAI", "the client library adds it to a response"),
    "prompt_cache_breakpoint": harmless("OpenAI", "prompts are always cached"),
}


def one_of(what: str, *known: str) -> BeforeValidator:
    """Refuse an object with another `type` by its name."""

    def check(value: object) -> object:
        kind = value.get("type") if isinstance(value, dict) else None
        if isinstance(kind, str) and kind not in known:
            raise PydanticCustomError(
                "value_error",
                "{what} of the type {kind} are not supported; use {known}",
                {"what": what, "kind": kind[:80], "known": ", ".join(known)},
            )
        return value

    return BeforeValidator(check)


class TextOfItem(WireModel):
    """A text that is part of an item."""

    type: Literal["input_text", "output_text", "text", "summary_text", "reasoning_text", "refusal"]
    text: str

    @classmethod
    def rules(cls) -> Mapping[str, FieldRule]:
        return PART_RULES

    @classmethod
    def read_fields(cls, value: Mapping[str, object]) -> Translated:
        if value.get("type") == "refusal":
            value = {"type": "refusal", "text": text_of(value, "refusal")}
        return super().read_fields(value)


Part = Annotated[
    TextOfItem,
    one_of("parts", "input_text", "output_text", "text", "summary_text", "reasoning_text", "refusal"),
]
Parts = Annotated[list[Part], Field(max_length=MAX_PARTS, fail_fast=True)]


class Item(WireModel):
    """One item of the input."""

    @classmethod
    def rules(cls) -> Mapping[str, FieldRule]:
        return ITEM_RULES


class MessageItem(Item):
    """A message of one role."""

    type: Literal["message"] = "message"
    role: Literal["user", "assistant", "system", "developer"]
    content: str | Parts


class CallItem(Item):
    """A call of a tool, by the model."""

    type: Literal["function_call"]
    call_id: str
    name: str
    arguments: str

    @classmethod
    def rules(cls) -> Mapping[str, FieldRule]:
        return {
            **ITEM_RULES,
            "parsed_arguments": harmless("OpenAI", "the client library adds it to a response"),
        }


class CallOutputItem(Item):
    """What a tool returned."""

    type: Literal["function_call_output"]
    call_id: str
    output: str | Parts


class ReasoningItem(Item):
    """What the model thought before it answered."""

    type: Literal["reasoning"]
    summary: Parts = Field(default_factory=list)
    content: Parts = Field(default_factory=list)

    @classmethod
    def rules(cls) -> Mapping[str, FieldRule]:
        return {**ITEM_RULES, "encrypted_content": only("OpenAI", "", why="send content")}


def _with_type(value: object) -> object:
    """Add the type that OpenAI lets messages leave out."""
    if isinstance(value, dict) and "role" in value:
        return {"type": "message", **value}
    return value


InputItem = Annotated[
    Annotated[MessageItem | CallItem | CallOutputItem | ReasoningItem, Field(discriminator="type")],
    one_of("items", "message", "function_call", "function_call_output", "reasoning"),
    BeforeValidator(_with_type),
]


@dataclass
class Turn:
    """A chat message, and the places of the items that it was made of."""

    message: JsonObject
    items: list[int] = field(default_factory=list)


def turns_of(items: Iterable[Item]) -> Iterator[Turn]:
    """Yield chat messages: reasoning, text and calls of the model that follow each other are one turn."""
    said: _ModelTurn | None = None
    for at, item in enumerate(items):
        if isinstance(item, ReasoningItem | CallItem) or (
            isinstance(item, MessageItem) and item.role == "assistant"
        ):
            if said is not None and said.ends_before(item):
                yield said.turn()
                said = None
            said = said or _ModelTurn()
            said.add(item, at)
            continue
        if said is not None:
            yield said.turn()
            said = None
        if isinstance(item, MessageItem):
            yield Turn({"role": item.role, "content": _content(item.content)}, [at])
        elif isinstance(item, CallOutputItem):
            result: JsonObject = {
                "role": "tool",
                "tool_call_id": item.call_id,
                "content": _content(item.output),
            }
            yield Turn(result, [at])
    if said is not None:
        yield said.turn()


class _ModelTurn:
    """What the model said in one turn, item by item; there may be a hundred thousand, so it is joined once."""

    def __init__(self) -> None:
        self._items: list[int] = []
        self._reasoning: list[str] = []
        self._contents: list[str | list[JsonObject]] = []
        self._calls: list[JsonObject] = []

    def ends_before(self, item: Item) -> bool:
        """Return whether an item of the model belongs to its next turn: a turn is reasoning, then text, then calls.

        What stands between calls and their results belongs to the turn of the calls, whose results come next.
        """
        if isinstance(item, CallItem) or self._calls:
            return False
        return bool(self._contents) or (isinstance(item, ReasoningItem) and bool(self._reasoning))

    def add(self, item: Item, at: int) -> None:
        """Take an item and its place."""
        self._items.append(at)
        if isinstance(item, ReasoningItem):
            text = "".join(part.text for part in item.content or item.summary)
            self._reasoning += [text] * bool(text)
        elif isinstance(item, CallItem):
            function = {"name": item.name, "arguments": item.arguments}
            self._calls.append({"id": item.call_id, "type": "function", "function": function})
        elif isinstance(item, MessageItem) and item.content:
            self._contents.append(_content(item.content))

    def turn(self) -> Turn:
        """Return the turn as a chat message."""
        content = self._contents[0] if self._contents else ""
        if len(self._contents) > 1:
            content = [part for one in self._contents for part in _parts(one)]
        message: JsonObject = {"role": "assistant", "content": content}
        if self._reasoning:
            message["reasoning_content"] = "".join(self._reasoning)
        if self._calls:
            message["tool_calls"] = self._calls
        return Turn(message, self._items)


def _parts(content: str | list[JsonObject]) -> list[JsonObject]:
    """Return a message's content as parts."""
    return content if isinstance(content, list) else [{"type": "text", "text": content}]


def _content(content: str | Sequence[TextOfItem]) -> str | list[JsonObject]:
    if isinstance(content, str):
        return content
    return [{"type": "text", "text": part.text} for part in content]


__all__ = ["CallItem", "InputItem", "MessageItem", "Turn", "one_of", "turns_of"]
