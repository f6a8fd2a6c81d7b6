"""A lower bound of a text's tokens from its bytes: never above what the tokenizer gives, and near enough to refuse what is huge."""

from collections.abc import Callable

import hypothesis.strategies as st
import pytest
from hypothesis import given, settings

from mixcli.llama.model import Model
from mixcli.prompts.content_tokenizer import ContentTokenizer
from mixcli.prompts.min_tokens import TokenBound
from quantize.source import flag
from tests.support.models import MISTRAL


@pytest.fixture(scope="module")
def known(
    vocab_model: Callable[..., Model], smol: Model
) -> dict[str, tuple[ContentTokenizer, TokenBound, Model]]:
    models = {name: vocab_model(name) for name in MISTRAL} | {"smol": smol}
    models["no space before"] = vocab_model("v1", {"tokenizer.ggml.add_space_prefix": flag(False)})
    return {
        name: (ContentTokenizer(model.vocab), TokenBound(model.vocab), model)
        for name, model in models.items()
    }


NAMES = [*MISTRAL, "smol", "no space before"]
texts = st.one_of(
    st.text(max_size=200),
    st.text(alphabet=" \n\t-=#*_/.0", max_size=300),
    st.builds(lambda one, n: one * n, st.text(max_size=8), st.integers(1, 60)),
    st.text(alphabet="\ud800é漢字👩‍👩‍👧नमस्ते\x00\x7f</s>[INST]<0x0A>\u2581", max_size=80),
)


@pytest.mark.parametrize("name", NAMES)
def test_the_bound_is_never_above_the_count(
    name: str, known: dict[str, tuple[ContentTokenizer, TokenBound, Model]]
) -> None:
    tokenizer, bound, model = known[name]

    @settings(max_examples=150, deadline=None)
    @given(texts)
    def holds(text: str) -> None:
        assert bound.of([text]) <= len(tokenizer.encode(text))

    holds()
    longest = sorted(range(model.vocab.n_tokens), key=lambda token: -len(model.vocab.piece(token)))[:300]
    for token in longest:  # where the bound is nearest
        text = model.vocab.piece(token).decode("utf-8", "replace")
        for n in (1, 2, 50):
            assert bound.of([text * n, 5]) <= len(tokenizer.encode(text * n)) + 1


@pytest.mark.parametrize("name", NAMES)
def test_the_bound_is_near_enough(
    name: str, known: dict[str, tuple[ContentTokenizer, TokenBound, Model]]
) -> None:
    _, bound, _ = known[name]
    assert bound.of(["a" * 1_000_000]) > 1_000_000 / 100
    assert bound.of(["x" * 10, 1, 2, 3]) >= 3
    assert bound.of([]) == 0
