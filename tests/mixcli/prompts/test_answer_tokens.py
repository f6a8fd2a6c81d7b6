"""What a model said comes back as the very tokens that it was sampled as."""

import pytest

from mixcli.llama.model import Model, Vocab
from mixcli.prompts import answer_tokens
from mixcli.prompts.answer_tokens import AnswerTokenCache
from mixcli.prompts.chat_format import ChatFormat
from mixcli.prompts.messages import Message
from tests.support.models import vocabulary_metadata  # noqa: F401  the Mistral vocabularies


def other_spelling(model: Model, text: str) -> list[int]:
    """The same text in smaller tokens than the tokenizer would take."""
    return [token for character in text for token in model.vocab.tokenize(character)]


def test_an_answer_is_repeated_with_its_own_tokens(smol: Model) -> None:
    chat, answers = ChatFormat.of(smol), AnswerTokenCache(smol.vocab)
    spelled = other_spelling(smol, "Paris is nice.")
    assert spelled != smol.vocab.tokenize("Paris is nice.")
    answers.learn("Paris is nice.", spelled)
    messages = [Message("user", "Where?"), Message("assistant", "Paris is nice."), Message("user", "Why?")]
    first = chat.encode(messages[:1])
    assert chat.encode(answers.recall(messages))[: len(first) + len(spelled)] == [*first, *spelled]


def test_a_clients_tokens_count_only_if_they_spell_the_text(smol: Model) -> None:
    answers = AnswerTokenCache(smol.vocab)
    spelled = tuple(other_spelling(smol, "Paris"))
    after = Message("user", "Why?")

    def recalled(tokens: tuple[int, ...]) -> tuple[int, ...]:
        return answers.recall([Message("assistant", "Paris", tokens), after])[0].tokens

    assert recalled(spelled) == spelled
    assert recalled(spelled[:-1]) == ()
    assert recalled((*spelled, smol.vocab.eos)) == (), "no control token comes in this way"
    assert recalled((10**9,)) == ()
    assert recalled((-1,)) == ()


def test_what_does_not_spell_its_text_is_not_learnt(smol: Model) -> None:
    answers = AnswerTokenCache(smol.vocab)
    answers.learn("Paris", smol.vocab.tokenize("Paris is"))
    assert answers.recall([Message("assistant", "Paris"), Message("user", "?")])[0].tokens == ()


def test_the_oldest_answers_are_forgotten_by_number_and_by_tokens(
    smol: Model, monkeypatch: pytest.MonkeyPatch
) -> None:
    def remembered() -> list[str]:
        return [
            text
            for text in texts
            if answers.recall([Message("assistant", text), Message("user", "?")])[0].tokens
        ]

    texts = ["one", "two", "three", "a longer text of ten tokens or so, at the end"]
    answers = AnswerTokenCache(smol.vocab)
    monkeypatch.setattr(answer_tokens, "MAX_ANSWERS", 3)
    for text in (*texts, "two"):
        answers.learn(text, smol.vocab.tokenize(text))
    assert remembered() == texts[1:]
    monkeypatch.setattr(answer_tokens, "MAX_TOKENS", len(smol.vocab.tokenize(texts[3])) + 1)
    answers.learn("one", smol.vocab.tokenize("one"))
    assert remembered() == ["one", "two"]


def test_more_tokens_than_a_text_has_bytes_are_not_looked_at(smol: Model) -> None:
    class Counted(Vocab):
        def piece(self, token: int) -> bytes:
            raise AssertionError(token)

    answers = AnswerTokenCache(Counted(smol))
    message = Message("assistant", "é", (5,) * 1_000_000)
    assert answers.recall([message, Message("user", "?")])[0].tokens == ()


def test_an_answer_that_is_to_be_continued_stays_text(smol: Model) -> None:
    answers = AnswerTokenCache(smol.vocab)
    answers.learn("Paris", smol.vocab.tokenize("Paris"))
    assert answers.recall([Message("user", "?"), Message("assistant", "Paris")])[-1].tokens == ()


@pytest.mark.parametrize("name", ["v1", "v3", "v7", "tekken-240718"])
def test_mistral_formats_repeat_the_tokens_too(vocab_model: object, name: str) -> None:
    model: Model = vocab_model(name)  # type: ignore[operator]
    chat, answers = ChatFormat.of(model), AnswerTokenCache(model.vocab)
    sampled = chat.encode_answer("Bonjour à tous")
    answers.learn("Bonjour à tous", sampled)
    messages = [Message("user", "Salut"), Message("assistant", "Bonjour à tous"), Message("user", "Et ?")]
    first = chat.encode(messages[:1])
    whole = chat.encode(answers.recall(messages))
    assert whole[: len(first) + len(sampled)] == [*first, *sampled]
    assert whole == chat.encode(messages), "and where the spelling is the usual one, nothing changes"
