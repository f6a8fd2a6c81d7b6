"""The stored traces are what the models write, and of tests that want one whole none hangs on rounding."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from mixcli.llama.batch import Batch
from mixcli.llama.context import Context
from mixcli.llama.model import Model
from mixcli.prompts.chat_format import ChatFormat
from mixcli.prompts.messages import Message
from tests.support.models import PLACEMENT
from tests.support.traces import CAPITAL, SMALL_CAPITAL, TIE, Trace

QUESTION = Message("user", "What is the capital of France?")


def recorded(model: Model, messages: list[Message], n_steps: int) -> Trace:
    """Return the likeliest tokens after these messages, as they are computed here."""
    steps: list[tuple[str, float]] = []
    batch, position, tokens = Batch(64), 0, list(ChatFormat.of(model).encode(messages))
    with Context(model, PLACEMENT) as context:
        while len(steps) < n_steps:
            batch.clear()
            batch.extend(tokens, position, 0, n_logits=1)
            assert context.decode(batch)
            position += len(tokens)
            logits = context.logits()
            second, first = np.partition(logits, len(logits) - 2)[-2:]
            tokens = [int(logits.argmax())]
            piece = "" if model.vocab.is_end(tokens[0]) else model.vocab.piece(tokens[0]).decode("utf-8")
            steps.append((piece, float(first - second)))
    return Trace(tuple(steps))


def assert_same(stored: Trace, here: Trace) -> None:
    assert [piece for piece, _ in here.steps] == [piece for piece, _ in stored.steps]
    for (piece, gap), (_, expected) in zip(here.steps, stored.steps, strict=True):
        assert gap == pytest.approx(expected, abs=TIE), piece
    assert stored.certain == stored.text


def test_smollm2s_trace(smol: Model) -> None:
    messages = [Message("system", "Answer in one sentence."), QUESTION]
    assert_same(SMALL_CAPITAL, recorded(smol, messages, len(SMALL_CAPITAL.steps)))


@pytest.mark.model
def test_the_demos_trace(demo_path: Callable[[str], Path]) -> None:
    with Model.load(demo_path("Q4_K_M"), PLACEMENT) as model:
        assert_same(CAPITAL, recorded(model, [QUESTION], len(CAPITAL.steps)))


def test_a_text_is_held_to_its_trace_up_to_the_first_tie() -> None:
    trace = Trace((("One", 2.0), (" two", 1.0), (" three", TIE / 2), (" four", 3.0)))
    assert trace.certain == "One two"
    assert all(map(trace.matches, ("One two three four", "One two and another", "One two")))
    assert not any(map(trace.matches, ("One", "One three", "Two")))
    whole = Trace(trace.steps[:2])
    assert whole.matches("One two\n")
    assert not whole.matches("One two three")
