"""Which requests are one conversation, and which replica it belongs to."""

import asyncio
import json
from collections import Counter

import pytest

from mixcli.cluster.affinity import HEAD, conversation, owner
from mixcli.host.protocol.paths import CHAT, COMPLETIONS, EMBEDDINGS, MESSAGES, RESPONSES
from mixcli.serve.model_field import LARGE

SYSTEM = {"role": "system", "content": "Be short."}
FIRST = {"role": "user", "content": "Hello"}
LATER = [{"role": "assistant", "content": "Hi."}, {"role": "user", "content": "Bye"}]


def key(path: str, **fields: object) -> str:
    return asyncio.run(conversation(path, json.dumps(fields).encode()))


@pytest.mark.parametrize(
    ("path", "first", "later", "other"),
    [
        (
            CHAT,
            {"messages": [SYSTEM, FIRST]},
            {"messages": [SYSTEM, FIRST, *LATER], "temperature": 0.5, "stream": True},
            {"messages": [FIRST]},
        ),
        (
            MESSAGES,
            {"system": "Be short.", "messages": [FIRST]},
            {"messages": [FIRST, *LATER], "system": "Be short.", "max_tokens": 5},
            {"system": "Be long.", "messages": [FIRST]},
        ),
        (
            RESPONSES,
            {"instructions": "Be short.", "input": [FIRST]},
            {"input": [FIRST, *LATER], "instructions": "Be short."},
            {"input": "Hello"},
        ),
        (
            COMPLETIONS,
            {"prompt": "x" * HEAD},
            {"prompt": "x" * HEAD + " and more"},
            {"prompt": "y" * HEAD},
        ),
    ],
)
def test_a_conversation_has_one_key_in_all_its_turns(
    path: str, first: dict[str, object], later: dict[str, object], other: dict[str, object]
) -> None:
    assert key(path, **first) == key(path, **later) != key(path, **other)


def test_a_large_body_is_known_by_its_first_bytes() -> None:
    """It takes long to parse, and an append-only history begins with the same bytes in every turn."""
    document = {"role": "user", "content": "long " * LARGE}
    turns = [key(CHAT, messages=messages) for messages in ([SYSTEM, document], [SYSTEM, document, *LATER])]
    assert turns[0] == turns[1] != key(CHAT, messages=[document])


def test_what_is_not_a_conversation_has_no_key() -> None:
    assert key(EMBEDDINGS, input="Hello") == ""
    assert [asyncio.run(conversation(CHAT, body)) for body in (b"", b"[]", b"{", b"[" * 100_000)] == [""] * 4
    assert key(CHAT, messages="not a list") != ""  # the host says what is wrong


def test_conversations_are_spread_and_only_those_of_a_lost_replica_move() -> None:
    replicas = ["a", "b", "c"]
    keys = [str(number) for number in range(300)]
    before = {one: replicas[owner(one, replicas)] for one in keys}
    assert min(Counter(before.values()).values()) > 60
    left = ["c", "a"]  # in any order
    after = {one: left[owner(one, left)] for one in keys}
    assert all(after[one] == before[one] for one in keys if before[one] != "b")
