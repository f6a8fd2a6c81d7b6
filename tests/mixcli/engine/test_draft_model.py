"""A draft model guesses what the large model would write; the answer is the same, and wrong guesses are forgotten."""

from collections.abc import Callable, Iterator
from dataclasses import replace

import pytest

from mixcli.engine.draft_model import Drafting, DraftModel
from mixcli.engine.engine import Engine
from mixcli.engine.sampling import SamplingParams
from mixcli.engine.sequence import Output, Request
from mixcli.llama.context import Context
from mixcli.llama.model import Model
from tests.support.greedy import assert_same_up_to_ties, run, tokens_of
from tests.support.models import PLACEMENT

GREEDY = SamplingParams(temperature=0, max_tokens=24)
DRAFTING = replace(PLACEMENT, n_ctx=512, n_batch=64, n_ubatch=64)


@pytest.fixture
def drafter(smol: Model) -> Iterator[DraftModel]:
    with Context(smol, DRAFTING) as context:
        yield DraftModel(context, smol.vocab.n_tokens)


def answered(engine: Engine, prompt: list[int], **fields: bool) -> tuple[list[int], Output]:
    outputs = run(engine, [Request("r", tuple(prompt), GREEDY, **fields)])["r"]  # type: ignore[arg-type]
    return tokens_of(outputs), outputs[-1]


@pytest.mark.model
def test_a_model_guesses_as_it_writes(
    smol: Model, make_engine: Callable[..., Engine], drafter: DraftModel
) -> None:
    prompt = smol.vocab.tokenize("The days of the week are Monday, Tuesday,")
    written, _ = answered(make_engine(), prompt)
    assert_same_up_to_ties(smol, prompt, written[:6], drafter.guess(prompt, 6))
    longer = [*prompt, *written[:3]]
    assert_same_up_to_ties(
        smol, longer, written[3:7], drafter.guess(longer, 4)
    )  # right guesses stand in its cache
    other = smol.vocab.tokenize("The days of the year are")
    expected, _ = answered(make_engine(), other)
    assert_same_up_to_ties(
        smol, other, expected[:5], drafter.guess(other, 5)
    )  # a wrong beginning is forgotten


@pytest.mark.model
def test_a_long_text_is_read_a_batch_at_a_time(smol: Model, drafter: DraftModel) -> None:
    text = smol.vocab.tokenize("One two three four five six seven eight nine ten. " * 12)
    pieces = -(-len(text) // DRAFTING.n_batch)
    assert pieces >= 2
    guesses = [drafter.guess(text, 4) for _ in range(pieces)]
    assert guesses[:-1] == [[]] * (pieces - 1)
    assert len(guesses[-1]) == 4
    assert drafter.guess(text * 5, 4) == [], "beyond its context it has nothing to say"


@pytest.mark.model
def test_an_answer_is_the_same_with_a_draft_model(
    smol: Model, make_engine: Callable[..., Engine], drafter: DraftModel
) -> None:
    prompt = smol.vocab.tokenize("List the months of the year: January,")
    plain, _ = answered(make_engine(), prompt)
    engine = Engine(smol, Context(smol, PLACEMENT), drafting=Drafting(drafter))
    drafted, last = answered(engine, prompt)
    engine.check()
    assert_same_up_to_ties(smol, prompt, plain, drafted)
    assert last.usage is not None
    assert 0 < last.usage.n_accepted <= last.usage.n_drafted
    _, alone = answered(engine, prompt, deterministic=True)
    assert alone.usage is not None
    assert alone.usage.n_drafted == 0, "drafts change the shape of a batch, and with it the last bits"


@pytest.mark.model
def test_several_requests_are_computed_together_without_drafts(smol: Model, drafter: DraftModel) -> None:
    engine = Engine(smol, Context(smol, PLACEMENT), drafting=Drafting(drafter))
    prompts = [smol.vocab.tokenize(text) for text in ("One, two,", "Red, green,")]
    for i, prompt in enumerate(prompts):
        engine.add(Request(str(i), tuple(prompt), replace(GREEDY, max_tokens=6)))
    outputs: list[Output] = []
    while engine.has_work:
        outputs += engine.step()
    used = [one.usage.n_drafted for one in outputs if one.usage]
    assert used == [0, 0]
