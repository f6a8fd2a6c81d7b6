"""The demo model against the dense model that it came from, and its routing as llama.cpp computes it.

All experts of the demo are copies of the dense feed-forward and the two chosen router weights sum to one, so both models are the same
function. What differs is rounding: at BF16 the activations are rounded too, and llama.cpp's own dense result moves by 0.3 to 0.6
in a logit (standard deviation 4) when only the attention kernel is changed. The demo stays within the same bounds.
"""

import ctypes
import re
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from mixcli.llama.batch import Batch
from mixcli.llama.context import Context
from mixcli.llama.model import Model
from mixcli.llama.observers import NamedTensors
from mixcli.prompts.chat_format import ChatFormat
from mixcli.prompts.messages import Message
from tests.support.models import PLACEMENT
from tests.support.side_by_side import side_by_side
from tests.support.traces import TIE

TOLERANCE = 1.0  # of a logit, at most, at every step
N_TOKENS = 48
BF16 = 32  # LLAMA_FTYPE_MOSTLY_BF16

QUESTIONS = [
    "What is photosynthesis?",
    "List the days of the week.",
    "def fib(n):",
    "Write a Python function that adds two numbers.",
    "Write a haiku about rain.",
]


@pytest.fixture(scope="module")
def dense(smol_path: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Model]:
    """SmolLM2 as llama.cpp itself writes it in BF16."""
    from llama_cpp import llama_cpp

    path = tmp_path_factory.mktemp("dense") / "dense-BF16.gguf"
    params = llama_cpp.llama_model_quantize_default_params()
    params.nthread, params.ftype, params.allow_requantize = 2, BF16, True
    status = llama_cpp.llama_model_quantize(str(smol_path).encode(), str(path).encode(), ctypes.byref(params))
    assert status == 0
    with Model.load(path, PLACEMENT) as model:
        yield model
    path.unlink()


@pytest.fixture(scope="module")
def demo(demo_path: Callable[[str], Path]) -> Iterator[Model]:
    with Model.load(demo_path("BF16"), PLACEMENT) as model:
        yield model


@pytest.mark.slow
@pytest.mark.model
def test_the_demo_answers_as_the_dense_model_does(dense: Model, demo: Model) -> None:
    chat = ChatFormat.of(demo)
    with Context(dense, PLACEMENT) as first, Context(demo, PLACEMENT) as second:
        for question in QUESTIONS:
            messages = [Message("system", "You are a helpful assistant."), Message("user", question)]
            tokens = chat.encode(messages)
            assert tokens == ChatFormat.of(dense).encode(messages)
            for step, (a, b) in enumerate(side_by_side(first, second, tokens, N_TOKENS)):
                assert np.abs(a - b).max() <= TOLERANCE, (question, step)
                assert a.max() - a[b.argmax()] < TIE, (question, step)


class Routing:
    """A tap on the experts that are chosen, and on their weights."""

    def __init__(self) -> None:
        self.chosen: dict[int, NDArray[np.generic]] = {}
        self.weights: dict[int, NDArray[np.generic]] = {}
        self.asked: list[str] = []

    def accepts(self, name: str) -> bool:
        self.asked.append(name)
        return re.fullmatch(r"ffn_moe_(topk|weights_norm)-\d+", name) is not None

    def observe(self, name: str, values: NDArray[np.generic]) -> None:
        kind, _, layer = name.partition("-")
        (self.chosen if kind == "ffn_moe_topk" else self.weights)[int(layer)] = values


@pytest.mark.model
def test_two_experts_are_chosen_in_each_layer_for_every_token(demo_path: Callable[[str], Path]) -> None:
    routing = Routing()
    with Model.load(demo_path("Q4_K_M"), PLACEMENT) as model:
        tokens = model.vocab.tokenize(
            "Mixtral sends each token through two of its eight experts, layer by layer."
        )
        batch = Batch(64)
        for position, token in enumerate(
            tokens
        ):  # logits for all: the last layer leaves out tokens that need none
            batch.extend([token], position, 0, n_logits=1)
        with Context(model, replace(PLACEMENT, n_ctx=256), tap=NamedTensors(routing)) as context:
            assert context.decode(batch)
    assert sorted(routing.chosen) == list(range(30))
    assert len(routing.asked) == len(set(routing.asked))
    for layer, chosen in routing.chosen.items():
        assert chosen.shape == (len(tokens), 2)
        assert ((chosen >= 0) & (chosen < 8)).all()  # type: ignore[operator]
        assert (chosen[:, 0] != chosen[:, 1]).all()
        assert len(np.unique(chosen)) > 2, f"layer {layer} uses two experts for the whole text"
    assert routing.weights
    for weights in routing.weights.values():
        np.testing.assert_allclose(weights.reshape(len(tokens), 2).sum(axis=1), 1.0, rtol=1e-5)


class Failing:
    def accepts(self, name: str) -> bool:
        return name == "attn_norm-3"

    def observe(self, name: str, values: NDArray[np.generic]) -> None:
        raise LookupError(name)


def test_an_error_of_a_tap_comes_out_of_decode(smol: Model) -> None:
    with Context(smol, replace(PLACEMENT, n_ctx=256), tap=NamedTensors(Failing())) as context:
        batch = Batch(4)
        batch.extend([1, 2], 0, 0, n_logits=1)
        for _ in range(2):
            with pytest.raises(LookupError, match="attn_norm-3"):
                context.decode(batch)
            context.truncate(0, 0)
