"""Raw prompts: Mistral's own code for gaps is the oracle, control tokens in a text are text."""

from collections.abc import Callable

import pytest
from mistral_common.protocol.fim.request import FIMRequest
from mistral_common.tokens.tokenizers.mistral import MistralTokenizer

from mixcli.errors import BadRequest
from mixcli.llama.model import Model
from mixcli.prompts.content_tokenizer import ContentTokenizer
from mixcli.prompts.raw_prompt import RawPrompt, RawPrompts
from tests.support.models import mistral_file

GAPS = [
    ("def f(", "return x"),
    ("def f(a):\n    ", "\n\nprint(f(1))"),
    ("", " x"),
    ("naïve 🙂 ", "日本語"),
    ("[SUFFIX] </s>", "[PREFIX]<s>"),
    ("a", ""),
    ("a", "  two spaces"),
]


def prompts_of(model: Model) -> RawPrompts:
    return RawPrompts(model.vocab, ContentTokenizer(model.vocab))


@pytest.mark.parametrize("name", ["v3", "v7", "tekken-240911"])
@pytest.mark.slow
def test_a_gap_has_the_tokens_that_mistrals_own_code_gives(
    vocab_model: Callable[..., Model], name: str
) -> None:
    reference = MistralTokenizer.from_file(str(mistral_file(name)))
    prompts = prompts_of(vocab_model(name))
    assert prompts.has_infill
    for before, after in GAPS:
        expected = reference.encode_fim(FIMRequest(prompt=before, suffix=after)).tokens
        assert prompts.encode(RawPrompt(before, suffix=after)) == expected, (before, after)


def test_a_vocabulary_without_the_tokens_has_no_gaps(vocab_model: Callable[..., Model], smol: Model) -> None:
    for model in (vocab_model("v1"), vocab_model("v2"), smol):
        assert not prompts_of(model).has_infill
        with pytest.raises(BadRequest, match="no tokens for a suffix") as raised:
            prompts_of(model).encode(RawPrompt("a", suffix="b"))
        assert raised.value.param == "suffix"


def test_the_beginning_of_sequence_and_control_tokens_are_as_they_are_asked_for(
    vocab_model: Callable[..., Model],
) -> None:
    model = vocab_model("v3")
    prompts, vocab = prompts_of(model), model.vocab
    plain = prompts.encode(RawPrompt("[INST] hi"))
    assert plain[0] == vocab.bos
    assert vocab.specials["[INST]"] not in plain
    assert prompts.encode(RawPrompt("[INST] hi", add_bos=False)) == plain[1:]
    assert vocab.specials["[INST]"] in prompts.encode(RawPrompt("[INST] hi", parse_special=True))
    assert prompts.encode(RawPrompt(tokens=(5, 6))) == [5, 6]
    assert prompts.encode(RawPrompt("")) == [vocab.bos]
