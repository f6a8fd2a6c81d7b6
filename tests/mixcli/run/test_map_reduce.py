"""Levels of answers end whatever the model and the server do: each is clearly shorter, or a sentence says why it is not."""

import re
from collections.abc import Sequence
from typing import Any

import pytest

from mixcli.errors import DoesNotFit, MixcliError
from mixcli.host.protocol.answers import ChatCompletion, TokenCount
from mixcli.host.protocol.messages import ChatBody
from mixcli.request.prompt import ChatTurn, question_of
from mixcli.run.map_reduce import MapReduce, Tokens
from mixcli.run.split import split

N_CTX = 1024


class Server:
    """Counts a word as a token and answers with `length` words, or with as many as are allowed."""

    def __init__(self, length: int | None = None, n_ctx: int = N_CTX) -> None:
        self.length, self.n_ctx = length, n_ctx
        self.n_asked = self.n_counted = 0

    def count_text(self, text: str) -> TokenCount:
        self.n_counted += 1
        return TokenCount(1 + len(re.findall(r"\w{1,6}|[^\w\s]", text)), self.n_ctx)

    def count_messages(self, messages: Sequence[ChatTurn]) -> TokenCount:
        return self.count_text(" ".join(one.content for one in messages))

    def ask(self, body: ChatBody, _key: str) -> ChatCompletion:
        self.n_asked += 1
        assert self.n_asked < 10_000, "it goes round for ever"
        n = (body.max_tokens or 0) if self.length is None else self.length
        choice = {"message": {"content": " ".join(["word"] * n)}, "finish_reason": "length"}
        return ChatCompletion({"choices": [choice], "usage": {"completion_tokens": n}})


def reduced(server: Server, text: str, max_tokens: int | None = None) -> tuple[tuple[ChatTurn, ...], int]:
    question = question_of("Summarise.", None, None, {}, has_text=True)
    body = ChatBody(options={} if max_tokens is None else {"max_tokens": max_tokens})
    work = MapReduce(question, body, server.ask, Tokens(server), 4, lambda *_: None)
    return work.last_messages(text)


TEXT = "\n\n".join(f"Paragraph {n} has some words, as many as this." for n in range(2000))


@pytest.mark.parametrize("max_tokens", [None, 1, 100, N_CTX - 1, N_CTX, N_CTX + 1, 10**9])
def test_it_ends_for_any_max_tokens(max_tokens: int | None) -> None:
    server = Server()
    messages, n_parts = reduced(server, TEXT, max_tokens)
    assert n_parts > 20
    assert (server.count_messages(messages).count or 0) + min(max_tokens or 170, 400) <= N_CTX


def test_a_server_that_ignores_max_tokens_is_named_and_the_rest_of_the_levels_is_not_asked() -> None:
    server = Server(length=5000)
    with pytest.raises(DoesNotFit, match=r"ignores max_tokens: .* 5,000 tokens long, 170 were allowed"):
        reduced(server, TEXT)
    assert server.n_asked < 100


def test_answers_that_do_not_shrink_are_a_sentence() -> None:
    class Silent(Server):
        def ask(self, body: ChatBody, key: str) -> ChatCompletion:
            return ChatCompletion({**super().ask(body, key).body, "usage": None})

    with pytest.raises(DoesNotFit, match=r"answers to the parts are too long: .* ask for shorter answers"):
        reduced(Silent(length=700), TEXT)


@pytest.mark.parametrize("found", [{}, {"count": "7"}, {"count": True, "max_model_len": 5}, {"count": -1}])
def test_a_server_that_cannot_count_is_named(found: dict[str, Any]) -> None:
    server = Server()
    server.count_messages = lambda _messages: TokenCount.of(found)  # type: ignore[method-assign]
    with pytest.raises(MixcliError, match="/tokenize returns no"):
        reduced(server, "text")


def test_one_character_that_counts_more_than_a_part_is_not_divided_for_ever() -> None:
    assert split("ab", lambda text: 100 * len(text), 10) == ["a", "b"]
    assert "".join(split("👩‍👩‍👧" * 40, lambda text: 9 * len(text), 20)) == "👩‍👩‍👧" * 40


@pytest.mark.parametrize("text", ["x" * 300_000, "word " * 60_000, "👩‍👩‍👧" * 20_000, "a\n" * 20])
def test_a_text_without_bounds_is_cut_with_few_counts(text: str) -> None:
    server = Server()
    parts = split(text, lambda part: server.count_text(part).count or 0, 800, 50)
    assert all((server.count_text(part).count or 0) <= 801 for part in parts)
    assert "".join("".join(parts).split()) == "".join(text.split())
    assert server.n_counted < 60 * len(parts) + 100
