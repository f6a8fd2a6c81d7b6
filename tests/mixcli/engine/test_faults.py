"""What is wrong with one request, or too large for one step, neither ends nor changes the others."""

import gc
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from functools import cache
from typing import Any

import numpy as np
import pytest

from mixcli.engine.constraint_spec import ConstraintSpec
from mixcli.engine.engine import Engine
from mixcli.engine.expert_routing import routing
from mixcli.engine.logprobs import log_softmax, log_sum
from mixcli.engine.prompt_lookup import PromptLookup
from mixcli.engine.sampling import SamplingParams
from mixcli.engine.sequence import Label, Request
from mixcli.engine.token_sampler import Logits, TokenSampler
from mixcli.errors import ContextOverflow, InternalError
from mixcli.llama.batch import Batch
from mixcli.llama.context import ComputeError, Context, ContextLost
from mixcli.llama.model import Model, Vocab
from tests.support.greedy import assert_same_up_to_ties, run, tokens_of
from tests.support.models import PLACEMENT, finish
from tests.support.synthetic import resized, shape_named, write_model

MakeEngine = Callable[..., Engine]
TINY = replace(PLACEMENT, n_ctx=1024)
GREEDY = SamplingParams(temperature=0, max_tokens=12)
COPY = (*range(50, 90),) * 4


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Model]:
    """One layer with random weights: fast, and for token ids as good as any."""
    path = tmp_path_factory.mktemp("tiny") / "tiny.gguf"
    write_model(path, resized(shape_named("mid", 1), 512, 256))
    with Model.load(path, TINY) as model:
        yield model
        gc.collect()  # contexts first


def engine_on(model: Model, make: type[Context] = Context, **fields: int) -> Engine:
    return Engine(model, make(model, replace(TINY, **fields)))


SCHEMA = {
    "type": "object",
    "properties": {
        "name": {"type": "string", "maxLength": 8},
        "age": {"type": "integer"},
        "city": {"enum": ["Bern"]},
    },
    "required": ["name", "age", "city"],
    "additionalProperties": False,
}


@pytest.mark.parametrize("max_tokens", [1, 2, 5, 40])
def test_what_a_schema_forces_is_no_guess(make_engine: MakeEngine, smol: Model, max_tokens: int) -> None:
    """Forced tokens come before any plain step; they must not be learned from, and the answer is the same with and without guesses."""
    answers = []
    prompt = tuple(smol.vocab.tokenize('{"name": "Ann", "age": 31, "city": "Bern"} ' * 3))
    for speculate in (True, False):
        request = Request(
            "r",
            prompt,
            replace(GREEDY, max_tokens=max_tokens),
            constraint=ConstraintSpec.of("json_schema", SCHEMA),
            speculate=speculate,
        )
        outputs = run(make_engine(), [request])["r"]
        assert outputs[-1].error is None
        answers.append(tokens_of(outputs))
    assert_same_up_to_ties(smol, prompt, *answers)
    assert len(answers[0]) <= max_tokens


def test_the_statistics_of_guesses_see_guesses_only(
    make_engine: MakeEngine, smol: Model, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[int] = []

    class Watched(PromptLookup):
        def observe(self, n_drafted: int, n_accepted: int, n_others: int = 0) -> None:
            seen.append(n_drafted)
            super().observe(n_drafted, n_accepted, n_others)

        def propose(self, tokens: Sequence[int], n_others: int = 0) -> list[int]:
            return []

    monkeypatch.setattr("mixcli.engine.generation.PromptLookup", Watched)
    constraint = ConstraintSpec.of("regex", "the very same words come every time [0-9] [0-9]")
    request = Request("r", (5, 6, 7), GREEDY, constraint=constraint, speculate=True)
    last = run(make_engine(), [replace(request, sampling=replace(GREEDY, max_tokens=30))])["r"][-1]
    assert last.usage is not None
    assert last.usage.n_drafted > 3, "some were forced"
    assert set(seen) <= {0}, "and none of them was taken for a guess"


class Broken(TokenSampler):
    """Chooses some tokens, then raises what no input can make it raise."""

    def choose(self, logits: Logits) -> int:
        if self._n == 0:
            raise ZeroDivisionError("made for this test")
        self._n -= 1
        return super().choose(logits)

    _n = 3


class BreakingParams(SamplingParams):
    def chooser(self, vocab: Vocab, n_ctx: int, prompt: Any) -> TokenSampler:
        return Broken(vocab.candidates)


class Unbuildable(SamplingParams):
    def chooser(self, vocab: Vocab, n_ctx: int, prompt: Any) -> TokenSampler:
        raise LookupError("made for this test")


@pytest.mark.slow
def test_a_bug_in_one_request_ends_that_one(tiny: Model, capfd: pytest.CaptureFixture[str]) -> None:
    good = Request("good", COPY, GREEDY)
    alone = run(engine_on(tiny), [good])["good"]
    engine = engine_on(tiny)
    with pytest.raises(LookupError):
        engine.add(Request("unbuildable", (5, 6, 7), Unbuildable()))
    bad = [Request(f"bad{i}", (9 + i, 8, 7), BreakingParams(max_tokens=9), speculate=True) for i in range(3)]
    found = run(engine, [*bad, good])
    assert_same_up_to_ties(tiny, COPY, tokens_of(alone), tokens_of(found["good"]))
    for request in bad:
        last = found[request.id][-1]
        assert isinstance(last.error, InternalError)
        assert "ZeroDivisionError: made for this test" in str(last.error)
        assert len(tokens_of(found[request.id])) == 3
    assert 'raise ZeroDivisionError("made for this test")' in capfd.readouterr().err, (
        "the traceback is in the log"
    )
    engine.check()
    assert len(tokens_of(run(engine, [replace(good, id="next")])["next"])) == 12


class Choosy(Context):
    """Refuses every batch with a token that it does not like, as llama.cpp refuses some."""

    wrong, error = 333, ComputeError

    def decode(self, batch: Batch) -> bool:
        if self.wrong in batch._token[: len(batch)]:
            super().decode(batch)  # what was computed before an error may stay in the cache
            raise self.error("made for this test")
        return super().decode(batch)


def test_a_batch_that_is_refused_ends_only_those_whose_part_it_was(tiny: Model) -> None:
    labels = tuple(Label(str(tokens), tokens) for tokens in ((5, 6, 7), (5, 6, 8), (9,)))
    requests = [
        Request("good", COPY, GREEDY),
        Request("bad", (5, 6, Choosy.wrong, 7), GREEDY),
        Request("labels", (9, 8, 7), GREEDY, labels=labels),
        Request("bad labels", (9, 8, 6), GREEDY, labels=(*labels, Label("x", (Choosy.wrong, 5)))),
        Request("other", (20, 21, 22), GREEDY),
    ]
    alone = {one.id: run(engine_on(tiny), [one])[one.id] for one in requests}
    engine = engine_on(tiny, Choosy)
    together = run(engine, requests)
    for name in ("bad", "bad labels"):
        assert isinstance(together[name][-1].error, ComputeError)
    for one in requests[::4]:
        assert_same_up_to_ties(tiny, one.prompt, tokens_of(alone[one.id]), tokens_of(together[one.id]))
    for outputs in (together["labels"], alone["labels"]):
        assert outputs[-1].label_probs == pytest.approx(alone["labels"][-1].label_probs, abs=0.1)
    engine.check()


def test_a_computation_that_fails_in_the_middle_is_no_matter_of_one_request(tiny: Model) -> None:
    class Lost(Choosy):
        error = ContextLost

    engine = engine_on(tiny, Lost)
    engine.add(Request("r", (5, Choosy.wrong), GREEDY))
    with pytest.raises(ContextLost):
        engine.step()


WORD = (100, 101)
ROUNDING = 1.0  # of a logarithm: random weights make much of how tokens are batched, and a token may go to another expert
LABEL_SETS: dict[str, list[tuple[int, ...]]] = {
    "63 that share 200 words": [(*WORD * 100, 110 + i, 9) for i in range(63)],
    "one of 600 words": [WORD * 300, (105,)],
    "each begins with the one before": [WORD * n for n in range(1, 60)],
    "300 short ones": [(100 + i % 20, 130 + i // 20, 7) for i in range(300)],
}


LABELS_PROMPT = (7, 8, 9)


@pytest.fixture(scope="module")
def scored(tiny: Model) -> Callable[[str], list[float]]:
    """Return the logarithms of a label set's probabilities, each label read on its own: once, for all sizes of a step."""
    return cache(lambda name: in_one(tiny, LABELS_PROMPT, LABEL_SETS[name]))


@pytest.mark.slow
@pytest.mark.parametrize("name", LABEL_SETS)
@pytest.mark.parametrize("n_ubatch", [256, 8, 1])
def test_labels_larger_than_a_step_are_scored_as_in_one(
    tiny: Model, scored: Callable[[str], list[float]], name: str, n_ubatch: int
) -> None:
    """An answer of somebody else goes on beside them; however small a step is, the probabilities are the same."""
    labels = LABEL_SETS[name]
    writer = Request("writer", COPY, replace(GREEDY, max_tokens=60))
    asked = Request("r", LABELS_PROMPT, GREEDY, labels=tuple(Label(str(one), one) for one in labels))
    engine = engine_on(tiny, n_batch=n_ubatch, n_ubatch=n_ubatch)
    found = run(engine, [writer, asked])
    assert found["writer"][-1].finish_reason in ("stop", "length")
    engine.check()
    least = 1e-300
    got = np.log(np.maximum(found["r"][-1].label_probs, least))
    differences = np.abs(got - np.maximum(scored(name), np.log(least)))
    assert np.quantile(differences, 0.9) < ROUNDING


def in_one(model: Model, prompt: tuple[int, ...], labels: list[tuple[int, ...]]) -> list[float]:
    """Read each label behind the prompt, on its own; give the logarithms of the probabilities."""
    ends = [token for token in range(model.vocab.n_tokens) if model.vocab.is_end(token)]
    sums = []
    batch = Batch(1024)
    with Context(model, replace(TINY, n_batch=1024, n_ubatch=1024)) as context:
        for label in labels:
            context.truncate(0, 0)
            batch.clear()
            batch.extend((*prompt, *label), 0, 0, n_logits=len(label) + 1)
            context.decode(batch)
            rows = [log_softmax(context.logits(len(prompt) - 1 + i)) for i in range(len(label) + 1)]
            total = sum(float(row[token]) for row, token in zip(rows, label, strict=False))
            if any(other[: len(label)] == label for other in labels if other != label):
                total += float(np.log(np.exp(rows[-1][ends]).sum()))
            sums.append(total)
    return [one - log_sum(np.array(sums, np.float32)) for one in sums]


def test_labels_that_can_never_fit_are_refused_with_the_number(tiny: Model) -> None:
    engine = engine_on(tiny)
    labels = (Label("a", (5,) * 1000), Label("b", (6,)))
    engine.add(Request("fits", (7,) * 25, GREEDY, labels=labels))
    with pytest.raises(
        ContextOverflow,
        match=r"prompt with its longest label is too long: 1,025 tokens, 1 more than the maximum context length of 1,024;",
    ):
        engine.add(Request("r", (7,) * 26, GREEDY, labels=labels))
    _, last = finish(engine)
    assert sum(last.label_probs) == pytest.approx(1)


@pytest.mark.parametrize("n_ubatch", [32, 64, 7])
def test_experts_are_counted_at_their_tokens_whatever_a_micro_batch_is(tiny: Model, n_ubatch: int) -> None:
    tokens = [5 + i % 300 for i in range(600)]
    expected = routing(tiny, replace(TINY, n_ubatch=512), tokens, 290)
    found = routing(tiny, replace(TINY, n_ubatch=n_ubatch), tokens, 290)
    assert [sum(layer) for layer in found.layers] == [310 * found.n_expert_used] * tiny.n_layer
    differences = np.abs(np.array(found.layers) - np.array(expected.layers))
    assert differences.sum() <= 12, "a token between two experts may go to either; no more than that"
