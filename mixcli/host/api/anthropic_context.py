"""What Anthropic's requests ask to be cleared from a conversation: the thinking of older turns. Claude Code sends it with each request."""

from typing import Annotated, Literal

from pydantic import BeforeValidator, Field
from pydantic_core import PydanticCustomError

from mixcli.host.api.wire_model import Whole, WireModel

MAX_EDITS = 16
CLEAR_THINKING = "clear_thinking_20251015"


def _known_edit(value: object) -> object:
    """Refuse an edit of another type by its name."""
    kind = value.get("type") if isinstance(value, dict) else None
    if isinstance(kind, str) and kind != CLEAR_THINKING:
        raise PydanticCustomError(
            "value_error",
            "the edit {kind} is not supported; use {known}, or on_overflow in /v1/chat/completions",
            {"kind": kind[:80], "known": CLEAR_THINKING},
        )
    return value


class KeptThinking(WireModel):
    """The newest turns whose thinking stays: so many of those that have some, or all."""

    type: Literal["thinking_turns", "all"]
    value: Annotated[Whole, Field(ge=1)] = 1


class ClearThinking(WireModel):
    """The thinking of older turns is left out."""

    type: Literal["clear_thinking_20251015"]
    keep: Literal["all"] | KeptThinking = KeptThinking(type="thinking_turns")


class ContextManagement(WireModel):
    """What is cleared before the model reads the conversation."""

    edits: list[Annotated[ClearThinking, BeforeValidator(_known_edit)]] = Field(
        default_factory=list, max_length=MAX_EDITS, fail_fast=True
    )

    @property
    def n_thinking_turns(self) -> int | None:
        """Return how many turns keep their thinking; None for all."""
        kept = [one.keep for one in self.edits]
        return min((one.value for one in kept if one != "all" and one.type != "all"), default=None)


__all__ = ["ContextManagement"]
