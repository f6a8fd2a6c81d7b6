"""A conversation that is longer than the context: refused, or shortened by its oldest whole turns. Never cut in silence.

The cache is not shifted: keys can be moved to other positions, but what a later token holds was computed from the turns that are gone,
so a shifted cache is another model's answer. Instead turns leave in steps of a quarter of the context. Between two steps the beginning of
the prompt stays as it is, and the cache serves it.
"""

from collections.abc import Callable, Sequence
from typing import Literal

from mixcli.engine.formats import Message
from mixcli.errors import ContextOverflow

Policy = Literal["error", "drop-oldest"]

STEP = 4  # a step is this part of the context


def fitted(
    messages: Sequence[Message],
    encode: Callable[[Sequence[Message]], list[int]],
    n_ctx: int,
    n_answer: int | None,
    policy: Policy,
) -> tuple[list[int], int]:
    """Give the prompt's token ids and how many messages were left out; ContextOverflow when it does not fit.

    `n_answer` is the longest answer that was asked for, in tokens; None counts as a quarter of the context, and more than half of it as half.
    """
    prompt = encode(messages)
    reserve = min(n_ctx // STEP if n_answer is None else n_answer, n_ctx // 2)
    room = n_ctx if policy == "error" else n_ctx - reserve
    if len(prompt) <= room:
        return prompt, 0
    if policy == "error":
        raise ContextOverflow(len(prompt), n_ctx)
    head, turns = _turns(messages)
    total, dropped = len(prompt), 0
    step = max(1, n_ctx // STEP)
    least = -(-(total - room) // step) * step
    while len(turns) > 1:
        dropped += len(turns.pop(0))
        prompt = encode([*head, *(message for turn in turns for message in turn)])
        if total - len(prompt) >= least and len(prompt) <= room:
            return prompt, dropped
    if len(prompt) < n_ctx:  # a short answer is better than none
        return prompt, dropped
    raise ContextOverflow(len(prompt), n_ctx)


def _turns(messages: Sequence[Message]) -> tuple[list[Message], list[list[Message]]]:
    """Give the system messages at the head, then turns: each begins with what the user says."""
    n_head = 0
    while n_head < len(messages) and messages[n_head].role == "system":
        n_head += 1
    turns: list[list[Message]] = []
    for message in messages[n_head:]:
        if message.role == "user" or not turns:
            turns.append([])
        turns[-1].append(message)
    return list(messages[:n_head]), turns
