"""Deterministic requests: the same bits alone, in a crowd, in a warm cache, in any order, after aborts."""

import random
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from mixcli.engine.constraint_spec import ConstraintSpec
from mixcli.engine.engine import Engine
from mixcli.engine.kv_store import KvStore
from mixcli.engine.sampling import SamplingParams
from mixcli.engine.sequence import Label, Output, Request
from mixcli.llama.context import Context
from mixcli.llama.model import Model
from tests.support.models import PLACEMENT

MakeEngine = Callable[..., Engine]
Answer = tuple[tuple[int, ...], tuple[float, ...], tuple[float, ...]]


def prompt(model: Model, i: int) -> tuple[int, ...]:
    """A prompt that begins like all others, and ends in its own way and length."""
    shared = "You sort letters by what they want. Answer shortly and in good English. " * 10
    return tuple(model.vocab.tokenize(f"{shared}Letter {i}: {'please send the goods again, ' * (1 + i % 4)}"))


def requests(model: Model) -> list[Request]:
    words = [tuple(model.vocab.tokenize(word)) for word in (" order", " complaint", " praise and thanks")]
    labels = tuple(Label(str(i), tokens) for i, tokens in enumerate(words))
    made = []
    for i in range(8):
        sampling = SamplingParams(max_tokens=6, temperature=(0.0, 1.5)[i % 2], seed=i, top_k=0)
        kind = {"labels": labels} if i % 4 == 0 else {"top_logprobs": 3}
        if i % 4 == 3:
            kind["constraint"] = ConstraintSpec.of("regex", "(order|complaint) number [0-9]{3}")
        made.append(Request(f"d{i}", prompt(model, i), sampling, deterministic=True, **kind))  # type: ignore[arg-type]
    return made


def answers(
    engine: Engine, todo: list[Request], disturb: Callable[[int], None] = lambda _: None
) -> dict[str, Answer]:
    for request in todo:
        engine.add(request)
    outputs: dict[str, list[Output]] = {}
    n = 0
    while engine.has_work:
        for output in engine.step():
            assert output.error is None
            outputs.setdefault(output.id, []).append(output)
        disturb(n)
        n += 1
    return {name: answer_of(found) for name, found in outputs.items() if name.startswith("d")}


def answer_of(outputs: list[Output]) -> Answer:
    return (
        tuple(token for one in outputs for token in one.token_ids),
        tuple(logprob.logprob for one in outputs for logprob in one.logprobs),
        tuple(p for one in outputs for p in one.label_probs),
    )


@pytest.fixture(scope="module")
def alone(smol: Model) -> dict[str, Answer]:
    found: dict[str, Answer] = {}
    for request in requests(smol):
        found |= answers(Engine(smol, Context(smol, PLACEMENT)), [request])
    assert all(tokens or probabilities for tokens, _, probabilities in found.values())
    return found


@pytest.mark.slow
@pytest.mark.parametrize("seed", [1, 2])
def test_all_at_once_in_any_order_after_another_and_beside_others(
    smol: Model, alone: dict[str, Answer], seed: int
) -> None:
    engine = Engine(smol, Context(smol, PLACEMENT))
    chance = random.Random(seed)
    n_others = 0

    def disturb(_n: int) -> None:
        nonlocal n_others
        if n_others < 6 and chance.random() < 0.3:
            text = prompt(smol, n_others)[: chance.randrange(20, 200)]
            engine.add(Request(f"o{n_others}", text, SamplingParams(max_tokens=4, seed=1)))
            n_others += 1
        if chance.random() < 0.2:
            engine.interrupt()

    todo = requests(smol)
    chance.shuffle(todo)
    others = [Request("before", prompt(smol, 9), SamplingParams(max_tokens=3, seed=1))]
    found = answers(engine, [*others, *todo], disturb)
    assert found == alone
    assert n_others > 0
    engine.check()
    warm = answers(engine, [replace(one, id=f"{one.id}") for one in requests(smol)])
    assert warm == alone


@pytest.mark.slow
def test_what_they_begin_with_is_computed_once(smol: Model, alone: dict[str, Answer]) -> None:
    engine = Engine(smol, Context(smol, PLACEMENT))
    assert answers(engine, requests(smol)) == alone
    total = sum(len(one.prompt) for one in requests(smol))
    assert engine.n_prompt_tokens_done < 0.8 * total, "whole pieces of the beginning are shared"


@pytest.mark.slow
def test_after_one_that_was_aborted(smol: Model, alone: dict[str, Answer]) -> None:
    engine = Engine(smol, Context(smol, PLACEMENT))
    first, second, *_ = requests(smol)
    engine.add(replace(first, id="x", sampling=SamplingParams(max_tokens=50, temperature=0), labels=()))
    for _ in range(3):
        engine.step()
    engine.abort("x")
    assert answers(engine, [second]) == {second.id: alone[second.id]}


@pytest.mark.slow
def test_nothing_comes_from_disk(smol: Model, alone: dict[str, Answer], tmp_path: Path) -> None:
    first = Engine(smol, Context(smol, PLACEMENT), KvStore(tmp_path, "key", 1 << 30))
    answers(first, [Request("o", prompt(smol, 1), SamplingParams(max_tokens=3), persist=True)])
    first.close()
    second = Engine(smol, Context(smol, PLACEMENT), KvStore(tmp_path, "key", 1 << 30))
    one = requests(smol)[1]
    assert answers(second, [one]) == {one.id: alone[one.id]}
