"""Sampling parameters: what they refuse, and what they do to a real distribution."""

import math
from collections import Counter
from typing import Any

import pytest

from mixcli.engine.sampling import SamplingParams
from mixcli.errors import BadRequest
from mixcli.llama.batch import Batch
from mixcli.llama.context import Context
from mixcli.llama.model import Model
from mixcli.llama.sampler import MAX_KNOWN
from tests.support.models import PLACEMENT


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("temperature", math.nan),
        ("temperature", math.inf),
        ("temperature", -0.1),
        ("temperature", 11),
        ("temperature", "hot"),
        ("temperature", None),
        ("temperature", True),
        ("top_p", -0.1),
        ("top_p", 10**400),
        ("stop", ("\ud800",)),
        ("top_p", 1.01),
        ("min_p", -0.5),
        ("min_p", 2),
        ("top_k", -1),
        ("top_k", 2.5),
        ("repeat_penalty", 0.0),
        ("repeat_penalty", math.nan),
        ("repeat_last_n", -2),
        ("frequency_penalty", 2.5),
        ("presence_penalty", -3),
        ("max_tokens", 0),
        ("max_tokens", 10**10),
        ("max_tokens", True),
        ("seed", 1 << 64),
        ("seed", "lucky"),
        ("stop", "text"),
        ("stop", ("",)),
        ("stop", ("x" * 1001,)),
        ("stop", ("a",) * 17),
        ("stop", (1,)),
        ("logit_bias", {1: 101.0}),
        ("logit_bias", {1: math.nan}),
        ("logit_bias", {-1: 1.0}),
        ("logit_bias", {"a": 1.0}),
        ("logit_bias", dict.fromkeys(range(4097), 0.0)),
        ("typical_p", 0),
        ("typical_p", 1.5),
        ("top_n_sigma", math.nan),
        ("top_n_sigma", 101),
        ("xtc_probability", -0.1),
        ("xtc_probability", 1.1),
        ("xtc_threshold", "low"),
        ("dry_multiplier", -1),
        ("dry_base", 0.5),
        ("dry_base", math.inf),
        ("dry_allowed_length", 0),
        ("dry_allowed_length", 1.5),
        ("dry_penalty_last_n", -2),
        ("dry_penalty_last_n", 10**9),
        ("dry_sequence_breakers", ["\n"]),
        ("dry_sequence_breakers", ("x" * 41,)),
        ("dry_sequence_breakers", ("",)),
        ("dry_sequence_breakers", (":",) * 17),
        ("dynatemp_range", -1),
        ("dynatemp_exponent", None),
        ("mirostat", 3),
        ("mirostat", True),
        ("mirostat", 1.0),
        ("mirostat_tau", -1),
        ("mirostat_eta", 2),
    ],
)
def test_a_value_that_cannot_be_meant_is_refused_by_its_name(field: str, value: Any) -> None:
    with pytest.raises(BadRequest) as caught:
        SamplingParams(**{field: value})
    assert caught.value.param == field
    assert field in str(caught.value)
    assert caught.value.exit_code == 2


def test_the_ends_of_the_ranges_are_allowed() -> None:
    SamplingParams(temperature=0, top_p=1, min_p=0, top_k=0, repeat_last_n=0, max_tokens=1, seed=-1)
    SamplingParams(
        repeat_last_n=-1, dry_penalty_last_n=-1, typical_p=1, top_n_sigma=-1, mirostat=2, dry_base=1
    )
    SamplingParams(
        temperature=10, top_p=1e-9, min_p=1, frequency_penalty=-2, presence_penalty=2, seed=(1 << 64) - 1
    )


@pytest.fixture(scope="module")
def logits(smol: Model) -> Context:
    """A context that has just read "The capital of France is", so that logits are there to sample from."""
    context, batch = Context(smol, PLACEMENT), Batch(16)
    batch.extend(smol.vocab.tokenize("The capital of France is"), 0, 0, n_logits=1)
    assert context.decode(batch)
    return context


def draw(context: Context, n: int, prompt: tuple[int, ...] = (), **params: Any) -> Counter[int]:
    drawn: Counter[int] = Counter()
    chooser = SamplingParams(**params).chooser(context.model.vocab, context.n_ctx, prompt)
    for _ in range(n):
        drawn[chooser.choose(context.logits())] += 1
    chooser.close()
    return drawn


OPEN = {"top_k": 0, "top_p": 1.0, "min_p": 0.0}


def ranked(context: Context) -> list[int]:
    return [int(token) for token in context.logits().argsort()[::-1]]


def test_greedy_takes_the_likeliest(logits: Context) -> None:
    assert draw(logits, 5, temperature=0) == {ranked(logits)[0]: 5}
    assert logits.model.vocab.piece(ranked(logits)[0]) == b" Paris"


def test_top_p_0_takes_the_likeliest_as_openai_has_it(logits: Context) -> None:
    assert draw(logits, 5, top_p=0, temperature=5) == {ranked(logits)[0]: 5}
    assert draw(logits, 5, top_p=-0.0, temperature=5) == {ranked(logits)[0]: 5}


def test_frequencies_follow_the_softmax_at_the_temperature(logits: Context) -> None:
    import numpy as np

    scores = logits.logits().astype(np.float64) / 0.7
    p = np.exp(scores - scores.max())
    p /= p.sum()
    drawn = draw(logits, 2000, temperature=0.7, seed=7, **OPEN)
    for token in ranked(logits)[:5]:
        assert drawn[token] / 2000 == pytest.approx(p[token], abs=4 * math.sqrt(p[token] / 2000) + 0.003)


def test_top_k_leaves_k_tokens(logits: Context) -> None:
    drawn = draw(logits, 300, temperature=5, seed=1, **OPEN | {"top_k": 3})
    assert set(drawn) == set(ranked(logits)[:3])


def test_top_p_leaves_the_nucleus(logits: Context) -> None:
    import numpy as np

    p = np.exp(logits.logits().astype(np.float64) - logits.logits().max())
    p /= p.sum()
    order = ranked(logits)
    nucleus = order[: int(np.searchsorted(np.cumsum(p[order]), 0.5)) + 1]
    assert set(draw(logits, 300, temperature=5, seed=1, **OPEN | {"top_p": 0.5})) <= set(nucleus)


def test_min_p_drops_what_is_far_below_the_best(logits: Context) -> None:
    scores = logits.logits()
    drawn = draw(logits, 300, temperature=5, seed=1, **OPEN | {"min_p": 0.1})
    assert all(scores[token] >= scores.max() + math.log(0.1) - 1e-4 for token in drawn)
    assert len(draw(logits, 300, temperature=5, seed=1, **OPEN)) > 100 > len(drawn)


def test_seeds_repeat_and_differ(logits: Context) -> None:
    def first(seed: int | None) -> tuple[int, ...]:
        return tuple(draw(logits, 1, temperature=3, seed=seed, **OPEN))

    assert first(5) == first(5)
    assert len({first(seed) for seed in range(20)}) > 5
    assert len({first(None) for _ in range(20)}) > 5
    assert first(0xFFFFFFFF) == first(0xFFFFFFFF)  # llama.cpp's "random" is not let through


def test_logit_bias_forbids_and_forces(logits: Context) -> None:
    best, second = ranked(logits)[:2]
    assert draw(logits, 1, temperature=0, logit_bias={best: -100}) == {second: 1}
    rare = ranked(logits)[-1]
    assert draw(logits, 3, temperature=1, logit_bias={rare: 100}) == {rare: 3}


def test_repeat_penalty_sees_the_prompt_and_the_answer(logits: Context) -> None:
    best, second = ranked(logits)[:2]
    assert draw(logits, 1, prompt=(best,), temperature=0, repeat_penalty=10.0) == {second: 1}
    assert draw(logits, 1, prompt=(best, 1, 2, 3), temperature=0, repeat_penalty=10.0, repeat_last_n=3) == {
        best: 1
    }
    assert draw(logits, 2, temperature=0, repeat_penalty=10.0) == {best: 1, second: 1}


@pytest.mark.parametrize("field", ["frequency_penalty", "presence_penalty"])
def test_openai_penalties_see_the_answer_only(logits: Context, field: str) -> None:
    best, second = ranked(logits)[:2]
    lead = float(logits.logits()[best] - logits.logits()[second])
    close = {second: lead - 1}  # the second is now 1 behind, and a penalty of 2 puts it first
    params = {"temperature": 0, "logit_bias": close, field: 2.0}
    assert draw(logits, 1, prompt=(best,) * 9, **params) == {best: 1}
    assert draw(logits, 2, **params) == {best: 1, second: 1}


def test_breakers_of_a_repetition_are_compared_with_the_vocabulary_once(smol: Model) -> None:
    """A long one takes a tenth of a second and more: of 128 answers to one question, in the thread that computes for all, it would be minutes."""
    params = SamplingParams(
        dry_multiplier=1.0, dry_sequence_breakers=("a sentence of thirty characters",) * 3
    )
    assert params.has_long_breakers
    assert not SamplingParams(dry_multiplier=1.0).has_long_breakers
    samplers = [params.varied(i).chooser(smol.vocab, 64, (5, 6, 7) * i) for i in range(5)]
    (stage,) = [one for key, one in smol.vocab.stages.items() if params.dry_sequence_breakers in key]
    for one in samplers:
        one.close()
    params.chooser(smol.vocab, 64, ()).close()
    assert [one for key, one in smol.vocab.stages.items() if params.dry_sequence_breakers in key] == [stage]
    for i in range(20):
        SamplingParams(dry_multiplier=1.0 + i).chooser(smol.vocab, 64, ()).close()
    assert len(smol.vocab.stages) == MAX_KNOWN
