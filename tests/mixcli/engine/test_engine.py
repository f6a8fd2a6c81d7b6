"""The engine on a real small model: answers, streaming, prefix reuse, abort, limits."""

import threading
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from mixcli.engine import pace
from mixcli.engine.engine import Engine
from mixcli.engine.faults import BadLogits
from mixcli.engine.sampling import SamplingParams
from mixcli.engine.sequence import Label, Output, Request
from mixcli.errors import BadRequest, ContextOverflow
from mixcli.llama import ggml
from mixcli.llama.batch import Batch
from mixcli.llama.context import Context
from mixcli.llama.model import Model
from mixcli.llama.tiny_model import write_tiny_model
from mixcli.prompts.chat_format import ChatFormat
from mixcli.prompts.messages import Message
from quantize.sources.gguf_header import read_header
from tests.support.greedy import answered, assert_same_up_to_ties
from tests.support.models import PLACEMENT, ask, finish
from tests.support.tiny_models import N_VOCAB as N_TINY
from tests.support.tiny_models import tiny_model
from tests.support.traces import SMALL_CAPITAL
from tests.support.waiting import LIMIT

MakeEngine = Callable[..., Engine]
NAN = 300  # the token of a tiny model whose weights a test damages
QUESTION = [
    Message("system", "Answer in one sentence."),
    Message("user", "What is the capital of France?"),
]


@pytest.fixture(scope="module")
def prompt(smol: Model) -> list[int]:
    return ChatFormat.of(smol).encode(QUESTION)


def test_answers_and_ends_by_itself(make_engine: MakeEngine, prompt: list[int]) -> None:
    text, last = ask(make_engine(), prompt, temperature=0)
    assert text == SMALL_CAPITAL.text
    assert last.finish_reason == "stop"
    assert last.usage is not None
    assert (last.usage.n_prompt, last.usage.n_cached, last.usage.n_generated) == (len(prompt), 0, 7)
    assert last.usage.seconds_prefill > 0
    assert last.usage.seconds_decode > 0


def test_prefill_in_small_chunks_gives_the_same_answer(make_engine: MakeEngine, prompt: list[int]) -> None:
    engine = make_engine(n_batch=8, n_ubatch=8)
    engine.add(Request("asked", tuple(prompt), SamplingParams(temperature=0)))
    silent = 0
    while (outputs := engine.step())[0].progress is not None:
        silent += 1
        assert outputs[0].progress.n_done == 8 * silent
    assert silent == (len(prompt) - 1) // 8
    text, _ = finish(engine)
    assert outputs[0].text + text == SMALL_CAPITAL.text


def test_the_next_turn_starts_where_the_last_one_ended(
    make_engine: MakeEngine, smol: Model, prompt: list[int]
) -> None:
    engine, chat = make_engine(), ChatFormat.of(smol)
    text, _ = ask(engine, prompt, temperature=0)
    follow_up = chat.encode([*QUESTION, Message("assistant", text), Message("user", "And of Italy?")])
    warm, last = answered(engine, follow_up)
    assert last.usage is not None
    assert last.usage.n_cached == len(prompt) + 7
    cold, last = answered(make_engine(), follow_up)
    assert last.usage is not None
    assert last.usage.n_cached == 0
    assert_same_up_to_ties(smol, follow_up, cold, warm)


def test_the_same_prompt_again_computes_one_token(make_engine: MakeEngine, prompt: list[int]) -> None:
    engine = make_engine()
    first, _ = ask(engine, prompt, temperature=0)
    again, last = ask(engine, prompt, temperature=0)
    assert again == first
    assert last.usage is not None
    assert last.usage.n_cached == len(prompt) - 1


def test_a_prompt_that_differs_early_reuses_only_what_is_equal(
    make_engine: MakeEngine, prompt: list[int]
) -> None:
    engine = make_engine()
    ask(engine, prompt, temperature=0)
    changed = [*prompt[:5], 100, *prompt[6:]]
    _, last = ask(engine, changed, temperature=0, max_tokens=1)
    assert last.usage is not None
    assert last.usage.n_cached == 5


def test_requests_run_side_by_side_in_the_order_they_came(make_engine: MakeEngine, prompt: list[int]) -> None:
    engine = make_engine()
    for name in ("a", "b", "c"):
        engine.add(Request(name, tuple(prompt), SamplingParams(temperature=0, max_tokens=3)))
    assert engine.n_waiting == 3
    order: list[str] = []
    while engine.has_work:
        order += [output.id for output in engine.step()]
    assert order == [*"abc"] * 3, "side by side, in the order of arrival"
    with pytest.raises(BadRequest):
        engine.add(Request("d", (), SamplingParams()))
    assert not engine.has_work


def test_max_tokens_ends_with_length(make_engine: MakeEngine, prompt: list[int]) -> None:
    text, last = ask(make_engine(), prompt, temperature=0, max_tokens=4)
    assert text == "The capital of France"
    assert last.finish_reason == "length"


@pytest.mark.parametrize(
    ("stop", "expected"),
    [
        (("France",), "The capital of "),
        ((" of France is",), "The capital"),
        (("xyz", "is P", "is"), "The capital of France "),
    ],
)
def test_stop_texts_end_the_answer_and_are_left_out(
    make_engine: MakeEngine, prompt: list[int], stop: tuple[str, ...], expected: str
) -> None:
    text, last = ask(make_engine(), prompt, temperature=0, stop=stop)
    assert (text, last.finish_reason) == (expected, "stop")


def test_a_prompt_longer_than_the_context_is_refused_with_numbers(make_engine: MakeEngine) -> None:
    engine = make_engine(n_ctx=256)
    with pytest.raises(ContextOverflow, match=r"257 tokens.*the maximum context length of 256;") as caught:
        engine.add(Request("long", tuple([5] * 257), SamplingParams()))
    assert (caught.value.n_prompt, caught.value.n_ctx, caught.value.exit_code) == (257, 256, 4)
    assert not engine.has_work
    ask(engine, [5] * 256, temperature=0)


@pytest.mark.slow
def test_a_full_context_ends_with_length(make_engine: MakeEngine, smol: Model) -> None:
    engine = make_engine(n_ctx=256)
    prompt = smol.vocab.tokenize("Count: one, two, three, four, one, two, three, four, one, two," * 3)
    no_end = {token: -100.0 for token in range(smol.vocab.n_tokens) if smol.vocab.is_end(token)}
    _, last = ask(engine, prompt, temperature=0, max_tokens=10_000, logit_bias=no_end)
    assert last.finish_reason == "length"
    assert last.usage is not None
    assert last.usage.n_prompt + last.usage.n_generated == 256 + 1  # the last one need not be computed


def test_a_context_that_llama_cpp_rounds_up_is_full_where_it_was_asked_to_be(
    make_engine: MakeEngine, smol: Model
) -> None:
    no_end = {token: -100.0 for token in range(smol.vocab.n_tokens) if smol.vocab.is_end(token)}
    _, last = ask(make_engine(n_ctx=64), [5] * 50, temperature=0, max_tokens=100, logit_bias=no_end)
    assert (last.finish_reason, last.usage and last.usage.n_generated) == ("length", 64 + 1 - 50)


def test_abort_while_waiting_running_and_unknown(make_engine: MakeEngine, prompt: list[int]) -> None:
    engine = make_engine()
    for name in ("first", "second"):
        engine.add(Request(name, (*prompt, *prompt), SamplingParams(temperature=0)))
    (output,) = engine.step()
    assert (output.id, output.finish_reason) == ("first", None)
    engine.abort("second")
    engine.abort("first")
    engine.abort("nobody")
    last = engine.step()
    assert sorted((output.id, output.finish_reason) for output in last) == [
        ("first", "abort"),
        ("second", "abort"),
    ]
    assert not engine.has_work
    text, _ = ask(engine, prompt, temperature=0)
    assert text == SMALL_CAPITAL.text


class Midway:
    """A tap that holds the second micro-batch until another thread has interrupted it."""

    def __init__(self) -> None:
        self.is_there, self.may_go_on = threading.Event(), threading.Event()
        self._n = 0

    def wants(self, tensor: int) -> bool:
        self._n += ggml.tensor_name(tensor) == "l_out-0"
        if self._n == 2 and not self.is_there.is_set():
            self.is_there.set()
            assert self.may_go_on.wait(LIMIT)
        return False

    def see(self, tensor: int) -> None:
        raise AssertionError("nothing was wanted")


@pytest.mark.slow
def test_interrupt_from_another_thread_stops_a_long_prefill(
    make_engine: MakeEngine, smol: Model, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pace, "IDLE", 1e6)  # however slow the machine is, a step is a micro-batch
    long, midway = [7, 8, 9] * 120, Midway()
    engine = Engine(smol, Context(smol, replace(PLACEMENT, n_batch=512, n_ubatch=128), tap=midway))
    engine.add(Request("long", tuple(long), SamplingParams(temperature=0)))

    def interrupt() -> None:
        midway.is_there.wait(LIMIT)
        engine.interrupt()
        midway.may_go_on.set()

    other = threading.Thread(target=interrupt)
    other.start()
    for _ in range(2):
        (output,) = engine.step()
        assert output.progress is not None
        assert output.progress.n_done == 128, "of the second one nothing is kept"
    other.join()
    engine.abort("long")
    (last,) = engine.step()
    assert last.finish_reason == "abort"
    resumed, last = answered(engine, long, 4)
    assert last.usage is not None
    assert last.usage.n_cached == 128
    fresh, _ = answered(make_engine(n_batch=512, n_ubatch=128), long, 4)
    assert_same_up_to_ties(smol, long, fresh, resumed)


def test_an_interrupt_alone_loses_nothing(smol: Model, prompt: list[int]) -> None:
    context = Context(smol, PLACEMENT)
    engine = Engine(smol, context)
    engine.add(Request("asked", tuple(prompt), SamplingParams(temperature=0)))
    text = ""
    while engine.has_work:
        context.interrupt()
        assert not any(output.text for output in engine.step())
        text += "".join(output.text for output in engine.step())
    assert text == SMALL_CAPITAL.text


def test_seed_decides_and_temperature_varies(make_engine: MakeEngine, smol: Model) -> None:
    prompt = smol.vocab.tokenize("Once upon a time")
    engine = make_engine()

    def write(seed: int) -> str:
        return ask(engine, prompt, temperature=1.5, top_k=0, top_p=1.0, min_p=0.0, seed=seed, max_tokens=12)[
            0
        ]

    write(0)  # the prompt comes out of the cache afterwards, with the same rounding each time
    texts = [write(seed) for seed in (1, 2, 3, 1)]
    assert texts[0] == texts[3]
    assert len(set(texts)) == 3


def test_characters_of_several_tokens_are_streamed_whole(make_engine: MakeEngine, smol: Model) -> None:
    """The model goes on with parrots, each of which is three tokens: two silent steps, then the whole character."""
    engine = make_engine()
    prompt = smol.vocab.tokenize("🦜漢🦜漢" * 10)
    engine.add(
        Request("asked", tuple(prompt), SamplingParams(temperature=0, max_tokens=12), continues_text=True)
    )
    outputs: list[Output] = []
    while engine.has_work:
        outputs += engine.step()
    assert [output.text for output in outputs] == ["", "", "🦜"] * 4
    assert all(len(output.token_ids) == 1 for output in outputs)


def test_half_a_character_at_the_end_shows_as_replacement(make_engine: MakeEngine, smol: Model) -> None:
    prompt = smol.vocab.tokenize("🦜漢🦜漢" * 10)
    text, last = ask(make_engine(), prompt, temperature=0, max_tokens=4)
    assert (text, last.finish_reason) == ("🦜\ufffd", "length")


@pytest.mark.parametrize(
    "name", ["output_norm.weight", "output.weight", "blk.0.attn_output.weight", "blk.0.ffn_down_exps.weight"]
)
def test_weights_of_nan_are_noticed_at_the_first_logits(tmp_path: Path, name: str) -> None:
    path = tmp_path / "nan.gguf"
    write_tiny_model(path)
    tensor = read_header(path).tensor(name)
    assert tensor is not None
    with path.open("r+b") as file:
        file.seek(tensor.offset)
        file.write(b"\xff" * tensor.n_bytes)  # NaN as float32 and as the 16-bit scales of blocks
    placement = replace(PLACEMENT, n_ctx=256)
    with Model.load(path, placement) as model, Context(model, placement) as context:
        engine = Engine(model, context)
        for _ in range(2):  # the engine can go on after it
            engine.add(Request("asked", (5, 6, 7), SamplingParams()))
            (output,) = engine.step()
            assert isinstance(output.error, BadLogits)
            assert "NaN" in str(output.error)
            assert output.error.exit_code == 1
            assert not engine.has_work


@pytest.mark.parametrize("temperature", [0, 1.5])
@pytest.mark.parametrize("labels", [(), (Label("a", (NAN, 5)), Label("b", (NAN, 6)))])
def test_weights_of_nan_that_only_the_answer_meets_are_noticed(
    tmp_path: Path, temperature: float, labels: tuple[Label, ...]
) -> None:
    """One token's embedding is damaged: the prompt is sound, and what follows the token is not."""
    path = tmp_path / "nan.gguf"
    tiny_model(path)
    tensor = read_header(path).tensor("token_embd.weight")
    assert tensor is not None
    placement = replace(PLACEMENT, n_ctx=256)
    n_row = tensor.n_bytes // N_TINY
    with path.open("r+b") as file:
        file.seek(tensor.offset + NAN * n_row)
        file.write(b"\xff" * n_row)
    with Model.load(path, placement) as model, Context(model, placement) as context:
        assert model.vocab.n_tokens == N_TINY
        engine = Engine(model, context)
        params = SamplingParams(temperature=temperature, logit_bias={NAN: 100.0}, max_tokens=9)
        engine.add(Request("asked", (5, 6, 7), params, labels=labels))
        outputs: list[Output] = []
        while engine.has_work:
            outputs += engine.step()
        assert isinstance(outputs[-1].error, BadLogits)
        assert [token for output in outputs for token in output.token_ids] == [NAN] * (not labels)


@pytest.mark.parametrize(
    ("request_", "param"),
    [
        (Request("x", (), SamplingParams()), "prompt"),
        (Request("x", (5, 10**6), SamplingParams()), "prompt"),
        (Request("x", (-1,), SamplingParams()), "prompt"),
        (Request("x", (5,), SamplingParams(logit_bias={49152: 1.0})), "logit_bias"),
    ],
)
def test_requests_that_can_never_run_are_refused(
    make_engine: MakeEngine, request_: Request, param: str
) -> None:
    engine = make_engine(n_ctx=256)
    with pytest.raises(BadRequest) as caught:
        engine.add(request_)
    assert caught.value.param == param
    engine.add(Request("twice", (5,), SamplingParams()))
    with pytest.raises(BadRequest):
        engine.add(Request("twice", (5,), SamplingParams()))


def test_kv_types_and_plain_attention_change_the_logits_only_by_rounding(
    smol: Model, prompt: list[int]
) -> None:
    def logits(**fields: object) -> NDArray[np.float32]:
        placement = replace(PLACEMENT, **fields)  # type: ignore[arg-type]
        batch = Batch(placement.n_batch)
        batch.extend(prompt, 0, 0, n_logits=1)
        with Context(smol, placement) as context:
            context.decode(batch)
            return context.logits() - context.logits().mean()

    plain = logits()
    for fields in ({"type_k": "q8_0", "type_v": "q8_0"}, {"flash_attn": False}):
        assert (np.abs(logits(**fields) - plain) < 1.5).all()  # their standard deviation is 4
