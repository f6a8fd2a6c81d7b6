"""Text deltas: whole characters, SentencePiece's dummy space, stop texts across deltas."""

from collections.abc import Callable

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mixcli.llama.model import Model
from mixcli.prompts.detokenizer import Detokenizer, StopMatcher

TEXTS = ["Hello, world", "naïve café – 12 €", "👩‍👩‍👧‍👦 漢字", "\n\n  indented\n", "ⵣ𐍈"]


@pytest.mark.parametrize("text", TEXTS)
@pytest.mark.parametrize("name", ["v1", "v3", "tekken-240911"])
def test_deltas_join_to_the_text(vocab_model: Callable[..., Model], name: str, text: str) -> None:
    vocab = vocab_model(name).vocab
    detokenizer = Detokenizer(vocab)
    deltas = [detokenizer.push(token) for token in vocab.tokenize(text)]
    assert "".join(deltas) + detokenizer.flush() == text
    assert not any("\ufffd" in delta for delta in deltas)


def test_only_the_dummy_space_at_the_start_of_a_turn_is_dropped(vocab_model: Callable[..., Model]) -> None:
    vocab = vocab_model("v3").vocab
    tokens = vocab.tokenize("two  words")
    continued = Detokenizer(vocab, at_start=False)
    assert "".join(map(continued.push, tokens)) == " two  words"
    started = Detokenizer(vocab)
    assert "".join(map(started.push, [*tokens, *tokens])) == "two  words two  words"


def test_control_tokens_show_as_nothing(vocab_model: Callable[..., Model]) -> None:
    vocab = vocab_model("v3").vocab
    detokenizer = Detokenizer(vocab)
    assert [detokenizer.push(token) for token in (vocab.bos, vocab.eos, vocab.specials["[INST]"])] == [""] * 3


def test_bytes_that_are_no_character_show_as_replacement(vocab_model: Callable[..., Model]) -> None:
    vocab = vocab_model("v1").vocab
    first_of_three = next(i for i in range(vocab.n_tokens) if vocab.text(i) == "<0xE2>")
    detokenizer = Detokenizer(vocab)
    assert detokenizer.push(first_of_three) == ""
    assert detokenizer.push(vocab.tokenize("x")[-1]).startswith("\ufffd")
    assert detokenizer.push(first_of_three) == ""
    assert detokenizer.flush() == "\ufffd"


def test_a_stop_text_is_found_across_deltas() -> None:
    matcher = StopMatcher(("</answer>",))
    assert [matcher.push(delta) for delta in ("Yes", ".<", "/ans", "wer> and more")] == [
        ("Yes", False),
        (".", False),
        ("", False),
        ("", True),
    ]


def test_what_only_looked_like_a_stop_text_is_given_back() -> None:
    matcher = StopMatcher(("abcd", "cde"))
    assert matcher.push("xxabc") == ("xx", False)
    assert matcher.push("x") == ("abcx", False)
    assert matcher.push("ab") == ("", False)
    assert matcher.flush() == "ab"
    assert matcher.flush() == ""


@settings(deadline=None)
@given(
    text=st.text("ab", max_size=30),
    stops=st.lists(st.text("ab", min_size=1, max_size=4), min_size=1, max_size=3),
    data=st.data(),
)
def test_cuts_between_deltas_do_not_matter(text: str, stops: list[str], data: st.DataObject) -> None:
    """Whatever the deltas, the answer ends before the stop text that is complete first."""
    matcher, shown, stopped, at = StopMatcher(stops), "", False, 0
    while at < len(text) and not stopped:
        size = data.draw(st.integers(1, 5))
        delta, stopped = matcher.push(text[at : at + size])
        shown, at = shown + delta, at + size
    if not stopped:
        shown += matcher.flush()
        assert shown == text
        assert not any(stop in text for stop in stops)
    else:
        assert text.startswith(shown)
        assert not any(stop in shown for stop in stops)
        assert any(text.startswith(stop, len(shown)) for stop in stops)
