"""Conversations that are too long: refused with numbers, or shortened by whole turns in steps that keep the beginning stable."""

from collections.abc import Sequence
from itertools import pairwise

import pytest

from mixcli.engine.formats import Message
from mixcli.engine.overflow import fitted
from mixcli.errors import ContextOverflow


def encode(messages: Sequence[Message]) -> list[int]:
    """One token a character, and one for each message."""
    return [ord(c) for m in messages for c in f"{m.content}\n"]


def talk(n_turns: int, size: int = 9) -> list[Message]:
    turns = [[Message("user", f"{i:0{size}}"), Message("assistant", f"{i:0{size}}")] for i in range(n_turns)]
    return [Message("system", "be kind"), *(m for turn in turns for m in turn), Message("user", "last")]


def test_what_fits_stays_whole() -> None:
    messages = talk(3)
    assert fitted(messages, encode, 200, None, "drop-oldest") == (encode(messages), 0)
    assert fitted(messages, encode, len(encode(messages)), None, "error") == (encode(messages), 0)


def test_an_error_has_numbers() -> None:
    with pytest.raises(ContextOverflow, match=r"room for \(40\)") as caught:
        fitted(talk(10), encode, 40, 8, "error")
    assert caught.value.n_prompt == len(encode(talk(10)))


def test_the_oldest_whole_turns_leave_and_the_system_message_stays() -> None:
    prompt, n_dropped = fitted(talk(10), encode, 100, 20, "drop-oldest")
    text = "".join(map(chr, prompt))
    assert text.startswith("be kind\n")
    assert text.endswith("last\n")
    assert n_dropped % 2 == 0
    assert len(prompt) <= 80
    assert text.split("\n")[1] == f"{n_dropped // 2:09}", "what is left begins with a whole turn"


def test_the_beginning_stays_the_same_for_some_turns() -> None:
    """Else every turn would be computed from the start."""
    heads = []
    for n in range(20, 60):
        prompt, _ = fitted(talk(n), encode, 400, 40, "drop-oldest")
        assert len(prompt) <= 360
        heads.append("".join(map(chr, prompt)).split("\n")[1])
    changes = sum(a != b for a, b in pairwise(heads))
    assert changes <= 40 * 20 // 100 + 1


def test_a_last_turn_that_is_too_long_by_itself_is_refused() -> None:
    with pytest.raises(ContextOverflow):
        fitted([*talk(3), Message("user", "x" * 500)], encode, 100, None, "drop-oldest")


def test_a_last_turn_may_leave_less_for_the_answer_than_wished() -> None:
    prompt, n_dropped = fitted([*talk(3), Message("user", "x" * 80)], encode, 100, 50, "drop-oldest")
    assert len(prompt) < 100
    assert n_dropped == 7
