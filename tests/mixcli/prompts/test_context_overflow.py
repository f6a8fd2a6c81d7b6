"""Conversations that are too long: refused with numbers, or shortened by whole turns in steps that keep the beginning stable."""

from collections.abc import Sequence
from itertools import pairwise

import pytest

from mixcli.errors import ContextOverflow
from mixcli.prompts.context_overflow import Policy, fitted
from mixcli.prompts.messages import Message


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
    with pytest.raises(ContextOverflow, match=r"the maximum context length of 40;") as caught:
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


def encode_small(messages: Sequence[Message]) -> list[int]:
    """Encode what may fit; fail the test for what can be known not to."""
    assert sum(len(m.content) for m in messages) <= 5000, "a text that can never fit is not split into tokens"
    return encode(messages)


def least(messages: Sequence[Message]) -> int:
    """Never above the count: one token for four characters."""
    return sum(len(m.content) // 4 for m in messages)


@pytest.mark.parametrize("policy", ["error", "drop-oldest"])
def test_what_can_never_fit_is_refused_without_being_encoded(policy: Policy) -> None:
    huge = [Message("user", "x" * 10_000_000)]
    with pytest.raises(ContextOverflow, match=r"at least 2,500,000 tokens, 2,499,000 more"):
        fitted(huge, encode_small, 1000, None, policy, least)
    with pytest.raises(ContextOverflow, match="at least"):
        fitted([Message("system", "x" * 10_000_000), *talk(3)], encode_small, 1000, None, policy, least)


@pytest.mark.parametrize("at", [1, 5, 19])
def test_a_huge_old_message_leaves_without_being_encoded(at: int) -> None:
    messages = talk(10)
    messages[at] = Message(messages[at].role, "x" * 10_000_000)
    prompt, n_dropped = fitted(messages, encode_small, 1000, None, "drop-oldest", least)
    assert n_dropped >= at
    assert len(prompt) <= 750
    assert "".join(map(chr, prompt)).endswith("last\n")


def test_a_long_history_is_encoded_a_few_times_only() -> None:
    n_encoded = 0

    def counted(messages: Sequence[Message]) -> list[int]:
        nonlocal n_encoded
        n_encoded += 1
        return encode_small(messages)

    heads = set()
    for n in range(5000, 5040):
        prompt, _ = fitted(talk(n), counted, 1000, None, "drop-oldest", least)
        assert 450 <= len(prompt) <= 750
        heads.add("".join(map(chr, prompt)).split("\n")[1])
    assert n_encoded < 40 * 15
    assert len(heads) <= 8, "the beginning stays the same for some turns"
