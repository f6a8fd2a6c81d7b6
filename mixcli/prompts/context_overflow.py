"""Handle a conversation longer than the context: refuse it, or drop its oldest whole turns.

The cache is not shifted: keys can be moved to other positions, but what a later token holds was computed from the turns that are gone,
so a shifted cache is another model's answer. Instead turns leave in steps of a quarter of the context. Between two steps the beginning of
the prompt stays as it is, and the cache serves it.
"""

from collections.abc import Callable, Sequence
from typing import Literal

from mixcli.errors import ContextOverflow
from mixcli.prompts.messages import Message

Policy = Literal["error", "drop-oldest"]

STEP = 4  # a step is this part of the context


def fitted(
    messages: Sequence[Message],
    encode: Callable[[Sequence[Message]], list[int]],
    n_ctx: int,
    n_answer: int | None,
    policy: Policy,
    least: Callable[[Sequence[Message]], int] = lambda _: 0,
) -> tuple[list[int], int]:
    """Return the prompt's token ids and how many messages were left out; ContextOverflow when it does not fit.

    `n_answer` is the longest answer that was asked for, in tokens; None counts as a quarter of the context, and more than half of it as half.
    `least` gives a lower bound of a conversation's tokens without encoding it: what can never fit is never encoded.
    """
    reserve = min(n_ctx // STEP if n_answer is None else n_answer, n_ctx // 2)
    n_least = least(messages)
    if policy == "error" or not messages:
        if n_least > n_ctx:
            raise ContextOverflow(n_least, n_ctx, at_least=True)
        prompt = encode(messages)
        if len(prompt) > n_ctx:
            raise ContextOverflow(len(prompt), n_ctx)
        return prompt, 0
    head, turns = _turns(messages)

    def kept(first: int) -> list[Message]:
        return [*head, *(message for turn in turns[first:] for message in turn)]

    first, last = 0, len(turns) - 1
    if n_least > n_ctx:
        limit = n_least - _in_steps(n_least - n_ctx, n_ctx)
        first = _first(lambda at: least(kept(at)) <= limit, 0, last)
        if (n_least := least(kept(first))) > n_ctx:
            raise ContextOverflow(n_least, n_ctx, at_least=True)
    prompt = encode(kept(first))
    room = n_ctx - reserve
    if len(prompt) > room:
        limit = min(room, len(prompt) - _in_steps(len(prompt) - room, n_ctx))
        first = _first(lambda at: len(encode(kept(at))) <= limit, first, last)
        prompt = encode(kept(first))
    if len(prompt) > room and len(prompt) >= n_ctx:  # below that, a short answer is better than no answer
        raise ContextOverflow(len(prompt), n_ctx)
    return prompt, len(messages) - len(kept(first))


def _in_steps(n_tokens: int, n_ctx: int) -> int:
    """Round up to whole steps."""
    step = max(1, n_ctx // STEP)
    return -(-n_tokens // step) * step


def _first(fits: Callable[[int], bool], low: int, high: int) -> int:
    """Return the first turn in low+1 .. high with which a conversation fits, where fewer turns always take less; `high` where none does."""
    while high - low > 1:
        middle = (low + high) // 2
        if fits(middle):
            high = middle
        else:
            low = middle
    return high


def _turns(messages: Sequence[Message]) -> tuple[list[Message], list[list[Message]]]:
    """Return the system messages at the head, then turns: each begins with what the user says."""
    n_head = 0
    while n_head < len(messages) and messages[n_head].role == "system":
        n_head += 1
    turns: list[list[Message]] = []
    for message in messages[n_head:]:
        if message.role == "user" or not turns:
            turns.append([])
        turns[-1].append(message)
    return list(messages[:n_head]), turns
