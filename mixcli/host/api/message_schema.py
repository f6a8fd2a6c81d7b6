"""Messages of a conversation as requests have them."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Annotated, Literal, Self

from pydantic import AfterValidator, Field, model_validator
from pydantic_core import PydanticCustomError

from mixcli.host.api.chat_fields import MESSAGE_RULES, PART_RULES
from mixcli.host.api.field_rules import FieldFault, FieldRule, Translated
from mixcli.host.api.tool_schema import MAX_CALLS, CallOfTurn
from mixcli.host.api.wire_model import Whole, WireModel
from mixcli.prompts.chat_format import check
from mixcli.prompts.messages import Message

MAX_MESSAGES = 1 << 17  # each has a token at least
MAX_PARTS = 1 << 12
MAX_ANSWER_TOKENS = 1 << 20
TEXTS = ("text", "refusal", "thinking")  # kinds of parts; all but the first are an assistant's
BETWEEN_PARTS = "\n\n"  # as mistral_common joins the texts of one message


def _is_text(kind: str) -> str:
    if kind not in TEXTS:
        raise PydanticCustomError(
            "value_error", "{kind} parts are not supported; send text", {"kind": kind[:40]}
        )
    return kind


class TextPart(WireModel):
    """One part of a message's content: a text, or of an assistant's also OpenAI's refusal or Mistral's thinking."""

    type: Annotated[str, AfterValidator(_is_text)]
    text: str

    @classmethod
    def rules(cls) -> Mapping[str, FieldRule]:
        return PART_RULES

    @classmethod
    def read_fields(cls, value: Mapping[str, object]) -> Translated:
        kind = value.get("type", "text")
        if kind != "text":  # the other fields are those of another kind of part
            is_text = isinstance(kind, str) and kind in TEXTS
            value = {"type": kind, "text": text_of(value, str(kind)) if is_text else value.get("text")}
        return super().read_fields(value)


def text_of(part: Mapping[str, object], kind: str) -> str:
    """Return the text of a part, which may be a list of texts, as in Mistral's thinking; FieldFault where it is neither."""
    value = part.get(kind)
    found = [{"type": "text", "text": value}] if isinstance(value, str) else value
    texts = (
        [one.get("text") if isinstance(one, dict) else None for one in found]
        if isinstance(found, list)
        else [None]
    )
    if not all(isinstance(text, str) for text in texts):
        raise FieldFault(kind, "invalid_type", "Input should be a valid string")
    return "".join(map(str, texts))


class ChatMessage(WireModel):
    """One turn of a conversation; `token_ids` are what an earlier answer was sampled as, `prefix` is Mistral's sign for one to continue.

    An assistant's turn may have `tool_calls` and `reasoning_content`; a tool's answers the call `tool_call_id`. Of `name`, that of a tool is
    used; no chat format has a place for others.
    """

    role: Literal["system", "developer", "user", "assistant", "tool"]
    content: str | Annotated[list[TextPart], Field(max_length=MAX_PARTS, fail_fast=True)]
    token_ids: list[Whole] = Field(default_factory=list, max_length=MAX_ANSWER_TOKENS, fail_fast=True)
    prefix: bool = False
    tool_calls: list[CallOfTurn] = Field([], max_length=MAX_CALLS, fail_fast=True)
    tool_call_id: str | None = None
    reasoning_content: str = ""
    name: str = ""

    @model_validator(mode="after")
    def of_its_role(self) -> Self:
        """Refuse what another role has."""
        if (self.role == "tool") != (self.tool_call_id is not None):
            raise ValueError("tool_call_id is required in messages with the role tool, and invalid in others")
        if self.role != "assistant" and (self.tool_calls or self.reasoning_content):
            raise ValueError(
                "tool_calls and reasoning_content are only allowed in messages with the role assistant"
            )
        if self.role != "assistant" and (kind := next((one for one in self._kinds if one != "text"), "")):
            raise ValueError(f"{kind} parts are only allowed in messages with the role assistant")
        return self

    @property
    def _kinds(self) -> tuple[str, ...]:
        return () if isinstance(self.content, str) else tuple(part.type for part in self.content)

    @classmethod
    def rules(cls) -> Mapping[str, FieldRule]:
        return MESSAGE_RULES

    @classmethod
    def read_fields(cls, value: Mapping[str, object]) -> Translated:
        if (
            value.get("role") == "assistant"
            and isinstance(value.get("refusal"), str)
            and not value.get("content")
        ):
            value = {**value, "content": value["refusal"], "refusal": None}
        found = super().read_fields(value)
        if (
            found.fields.get("role") == "assistant" and "content" not in found.fields
        ):  # as clients send it back
            return Translated({**found.fields, "content": ""})
        return found

    def message(self) -> Message:
        """Return the turn as the engine takes it."""
        parts: tuple[str, ...] = ()
        reasoning = self.reasoning_content
        if isinstance(self.content, str):
            content, tokens = self.content, tuple(self.token_ids)
        else:
            parts = tuple(part.text for part in self.content if part.text and part.type != "thinking")
            reasoning += "".join(part.text for part in self.content if part.type == "thinking")
            content, tokens = BETWEEN_PARTS.join(parts), ()
        return Message(
            "system" if self.role == "developer" else self.role,
            content,
            tokens,
            tuple(one.call() for one in self.tool_calls),
            reasoning,
            self.tool_call_id or "",
            self.name if self.role == "tool" else "",
            parts if len(parts) > 1 else (),
        )


def conversation(messages: Sequence[ChatMessage]) -> tuple[Message, ...]:
    """Return a conversation as the engine takes it; each result has the name of the tool that was called.

    Raises BadRequest where results and calls do not belong together.
    """
    found: list[Message] = []
    names: dict[str, str] = {}
    for one in messages:
        message = one.message()
        if message.role == "tool" and not message.name:
            message = replace(message, name=names.get(message.call_id, ""))
        names |= {call.id: call.name for call in message.calls}
        found.append(message)
    check(found)
    return tuple(found)


__all__ = ["MAX_MESSAGES", "ChatMessage", "conversation", "text_of"]
