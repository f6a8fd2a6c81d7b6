"""Messages of a conversation as requests have them."""

from collections.abc import Mapping
from typing import Annotated, Literal

from pydantic import AfterValidator, Field
from pydantic_core import PydanticCustomError

from mixcli.host.api.chat_fields import MESSAGE_RULES, PART_RULES
from mixcli.host.api.field_rules import FieldRule, Translated
from mixcli.host.api.wire_model import Whole, WireModel
from mixcli.prompts.messages import Message

MAX_MESSAGES = 1 << 17  # each has a token at least
MAX_PARTS = 1 << 12
MAX_ANSWER_TOKENS = 1 << 20
BETWEEN_PARTS = "\n\n"  # as mistral_common joins the texts of one message


def _is_text(kind: str) -> str:
    if kind != "text":
        raise PydanticCustomError(
            "value_error", "{kind} parts are not supported; send text", {"kind": kind[:40]}
        )
    return kind


class TextPart(WireModel):
    """One part of a message's content; only text is understood."""

    type: Annotated[str, AfterValidator(_is_text)]
    text: str

    @classmethod
    def rules(cls) -> Mapping[str, FieldRule]:
        return PART_RULES

    @classmethod
    def read_fields(cls, value: Mapping[str, object]) -> Translated:
        if value.get("type", "text") != "text":  # the other fields are those of another kind of part
            value = {name: value[name] for name in ("type", "text") if name in value}
        return super().read_fields(value)


class ChatMessage(WireModel):
    """One turn of a conversation; `token_ids` are what an earlier answer was sampled as, `prefix` is Mistral's sign for one to continue."""

    role: Literal["system", "developer", "user", "assistant"]
    content: str | Annotated[list[TextPart], Field(max_length=MAX_PARTS, fail_fast=True)]
    token_ids: list[Whole] = Field([], max_length=MAX_ANSWER_TOKENS, fail_fast=True)
    prefix: bool = False

    @classmethod
    def rules(cls) -> Mapping[str, FieldRule]:
        return MESSAGE_RULES

    @classmethod
    def read_fields(cls, value: Mapping[str, object]) -> Translated:
        found = super().read_fields(value)
        if found.fields.get("role") == "assistant":  # one without a text, as clients send it back
            found.fields.setdefault("content", "")
        return found

    def message(self) -> Message:
        """Return the turn as the engine takes it."""
        role = "system" if self.role == "developer" else self.role
        if isinstance(self.content, str):
            return Message(role, self.content, tuple(self.token_ids))
        return Message(role, BETWEEN_PARTS.join(part.text for part in self.content))


__all__ = ["MAX_MESSAGES", "ChatMessage"]
