"""Models whose layers look back a few tokens only: llama.cpp gives their old cells away, and no text may continue where these are missing."""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from random import Random

import numpy as np
import pytest

from mixcli.engine.engine import Engine
from mixcli.engine.kv_store import KvStore
from mixcli.engine.logprobs import TokenLogprobs
from mixcli.engine.sampling import SamplingParams
from mixcli.engine.sequence import Label, Output, Request
from mixcli.llama.context import Context
from mixcli.llama.model import Model
from profiles.placement import Placement
from quantize.source import u32
from tests.support import family_gguf

PLACEMENT = Placement(n_ctx=256, n_batch=64, n_ubatch=64, n_seq_max=16, n_threads=1, n_threads_batch=1)
NEAR = (
    0.02  # of a log-probability: rounding is a tenth of it, a window with other cells in it many times that
)


@pytest.fixture(scope="module", params=("gemma3", "gpt-oss"))
def model(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Model]:
    path = tmp_path_factory.mktemp("window") / "tiny.gguf"
    all_experts = {
        "gpt-oss.expert_used_count": u32(family_gguf.N_EXPERT)
    }  # no rounding may choose another one
    changes = all_experts if request.param == "gpt-oss" else {}
    with Model.load(family_gguf.write(request.param, path, changes=changes), PLACEMENT) as loaded:
        yield loaded


def drawn(n: int, seed: int) -> tuple[int, ...]:
    draw = Random(seed)
    return tuple(draw.randrange(259, family_gguf.N_VOCAB) for _ in range(n))


def answer(
    engine: Engine, prompt: tuple[int, ...], n: int = 8, **fields: object
) -> tuple[Output, list[TokenLogprobs]]:
    """Run one request; give its last output and all log-probabilities."""
    sampling = SamplingParams(temperature=0, max_tokens=n, min_tokens=n)
    engine.add(Request("one", prompt, sampling, top_logprobs=3, **fields))  # type: ignore[arg-type]
    found = list(outputs(engine))
    engine.check()
    return found[-1], [one for output in found for one in output.logprobs]


def outputs(engine: Engine) -> Iterator[Output]:
    while engine.has_work:
        yield from engine.step()


def agree(first: list[TokenLogprobs], second: list[TokenLogprobs]) -> bool:
    for a, b in zip(first, second, strict=True):
        if a.token != b.token:  # where rounding decides; what follows is another text
            return abs(dict(a.top)[a.token] - dict(a.top).get(b.token, -np.inf)) < NEAR
        if abs(a.logprob - b.logprob) >= NEAR:
            return False
    return True


def filled(model: Model, first: tuple[int, ...]) -> Engine:
    """Return an engine that has a text, and computed others after it, some of whose cells are the first one's old ones."""
    engine = Engine(model, Context(model, PLACEMENT))
    answer(engine, drawn(30, 9), 1)
    answer(engine, first, 1)
    answer(engine, drawn(8, 2), 110, park=False)  # the cells run short: the text before `first` is evicted
    answer(engine, drawn(8, 4), 60, park=False)  # takes its cells, and goes on into those of `first`
    return engine


def test_a_prefix_whose_window_was_given_away_is_computed_again(model: Model) -> None:
    first = drawn(120, 1)
    shorter = (*first[:40], *drawn(4, 3))
    last, again = answer(filled(model, first), shorter)
    assert last.usage is not None
    assert last.usage.n_cached == 0
    _, alone = answer(Engine(model, Context(model, PLACEMENT)), shorter)
    assert agree(again, alone)


def test_a_text_continues_where_it_ended(model: Model) -> None:
    first = drawn(120, 1)
    longer = (*first, *drawn(4, 3))
    last, again = answer(filled(model, first), longer)
    assert last.usage is not None
    assert last.usage.n_cached == 120
    _, alone = answer(Engine(model, Context(model, PLACEMENT)), longer)
    assert agree(again, alone)


def test_requests_side_by_side_answer_as_alone(model: Model) -> None:
    prompts = [(*drawn(40, 1), *drawn(4 + i, i + 2)) for i in range(4)]
    engine = Engine(model, Context(model, PLACEMENT))
    for i, prompt in enumerate(prompts):
        engine.add(
            Request(str(i), prompt, SamplingParams(temperature=0, max_tokens=4, min_tokens=4), top_logprobs=3)
        )
    found: dict[str, list[TokenLogprobs]] = {str(i): [] for i in range(len(prompts))}
    for output in outputs(engine):
        found[output.id] += output.logprobs
    engine.check()
    for i, prompt in enumerate(prompts):
        _, alone = answer(Engine(model, Context(model, PLACEMENT)), prompt, 4)
        assert agree(found[str(i)], alone)


def test_a_path_to_labels_begins_again_where_its_window_was_given_away(model: Model) -> None:
    """Labels longer than the window, beside a text whose end leaves holes before the path's own cells: the way back is cut off."""
    labels = tuple(Label(str(i), drawn(100, 5 + i)) for i in range(4))
    prompt = drawn(40, 1)
    few = replace(PLACEMENT, n_seq_max=4)  # no slots for a fan

    def probabilities(engine: Engine) -> tuple[float, ...]:
        engine.add(Request("labels", prompt, SamplingParams(temperature=0), labels=labels))
        found = [output for output in outputs(engine) if output.label_probs]
        engine.check()
        return found[0].label_probs

    beside = Engine(model, Context(model, few))
    beside.add(
        Request("beside", drawn(4, 9), SamplingParams(temperature=0, max_tokens=4, min_tokens=4), park=False)
    )
    n_before = beside.n_prompt_tokens_done
    assert probabilities(beside) == pytest.approx(
        probabilities(Engine(model, Context(model, PLACEMENT))), abs=NEAR
    )
    assert beside.n_prompt_tokens_done - n_before > len(prompt) + 4, "the prompt was computed once only"


def test_a_text_on_disk_is_continued_where_it_ended_and_nowhere_before(model: Model, tmp_path: Path) -> None:
    first = drawn(120, 1)

    def engine() -> Engine:
        return Engine(model, Context(model, PLACEMENT), KvStore(tmp_path, "tiny", 1 << 30))

    before = engine()
    answer(before, drawn(30, 9), 1)
    answer(before, first, 1, persist=True)
    answer(before, drawn(8, 2), 110, park=False)
    answer(before, drawn(8, 4), 60, park=False)
    before.close()
    for n_known, n_cached in ((120, 120), (100, 0)):
        prompt = (*first[:n_known], *drawn(4, 3))
        last, again = answer(engine(), prompt, 2)
        assert last.usage is not None
        assert last.usage.n_cached == n_cached
        assert agree(again, answer(Engine(model, Context(model, PLACEMENT)), prompt, 2)[1])
