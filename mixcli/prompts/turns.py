"""How Mistral's formats arrange messages before they are written: neighbors joined, system texts moved, results in the order of their calls."""

from collections.abc import Sequence
from dataclasses import replace
from itertools import groupby

from mixcli.prompts.messages import Message, ToolCall

_APART = ("system", "tool")


def joined(messages: Sequence[Message], *, keep_empty: bool = False) -> list[Message]:
    """Join neighbors of one role by an empty line, as Mistral's reference does; system texts and results stay single.

    The reference leaves out empty contents, its chat templates do not (`keep_empty`).
    """
    turns: list[Message] = []
    for role, group in groupby(messages, key=lambda message: message.role):
        neighbours = list(group)
        if role in _APART or len(neighbours) == 1:
            turns += neighbours
        else:
            turns.append(
                Message(
                    role,
                    "\n\n".join(m.content for m in neighbours if m.content or keep_empty),
                    calls=tuple(call for m in neighbours for call in m.calls),
                    reasoning=_paragraphs([m.reasoning for m in neighbours]),
                )
            )
    return turns


def with_system(messages: Sequence[Message], *, first: bool) -> list[Message]:
    """Return the turns of all but the system, with all system texts at the head of the first or the last user turn."""
    system = _paragraphs([m.content for m in messages if m.role == "system"])
    turns = [turn for turn in joined(messages) if turn.role != "system"]
    if not turns or turns[0].role != "user":
        turns.insert(0, Message("user", ""))
    if system:
        users = [i for i, turn in enumerate(turns) if turn.role == "user"]
        at = users[0 if first else -1]
        turns[at] = replace(turns[at], content=f"{system}\n\n{turns[at].content}")
    return turns


def in_order_of_calls(turns: Sequence[Message]) -> list[Message]:
    """Sort the results after each turn with calls as these stand there."""
    ordered: list[Message] = []
    calls: tuple[ToolCall, ...] = ()
    for role, group in groupby(turns, key=lambda turn: turn.role):
        found = list(group)
        if role == "assistant":
            calls = found[-1].calls
        elif role == "tool":
            place = {call.id: i for i, call in enumerate(calls)}
            found.sort(key=lambda turn: place.get(turn.call_id, len(place)))
        ordered += found
    return ordered


def _paragraphs(texts: Sequence[str]) -> str:
    return "\n\n".join(text for text in texts if text)
