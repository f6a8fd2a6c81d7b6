"""Many requests at once on a real small model: the same answers as alone, labels by brute force, drafts that change nothing."""

import random
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from mixcli.engine.constraint_spec import ConstraintSpec
from mixcli.engine.engine import Engine
from mixcli.engine.kv_store import KvStore
from mixcli.engine.logprobs import log_softmax
from mixcli.engine.sampling import SamplingParams
from mixcli.engine.sequence import Label, Output, Request
from mixcli.errors import Busy
from mixcli.llama.context import Context
from mixcli.llama.model import Model
from mixcli.prompts.chat_format import ChatFormat
from mixcli.prompts.messages import Message
from tests.support.greedy import answered, assert_same_up_to_ties, logits_after, run, tokens_of
from tests.support.models import PLACEMENT, ask, finish
from tests.support.synthetic import resized, shape_named, write_model

MakeEngine = Callable[..., Engine]
GREEDY = SamplingParams(temperature=0, max_tokens=16)


@pytest.fixture(scope="module")
def chat(smol: Model) -> ChatFormat:
    return ChatFormat.of(smol)


def question(chat: ChatFormat, text: str) -> tuple[int, ...]:
    return tuple(chat.encode([Message("user", text)]))


@pytest.mark.slow
def test_answers_side_by_side_are_those_of_each_alone(
    make_engine: MakeEngine, smol: Model, chat: ChatFormat
) -> None:
    prompts = [
        question(chat, f"What is {word}?") for word in ("rain", "iron", "a piano", "love", "sleep", "2 + 2")
    ]
    requests = [Request(f"r{i}", prompt, GREEDY) for i, prompt in enumerate(prompts)]
    together = run(make_engine(), requests)
    for request in requests:
        alone = run(make_engine(), [request])[request.id]
        assert_same_up_to_ties(smol, request.prompt, tokens_of(alone), tokens_of(together[request.id]))
        last = together[request.id][-1]
        assert last.finish_reason in ("stop", "length")
        assert last.usage is not None
        assert last.usage.n_generated == len(tokens_of(together[request.id]))


def test_a_common_beginning_is_computed_once_for_requests_that_come_together(
    make_engine: MakeEngine, chat: ChatFormat
) -> None:
    rules = "You sort letters. " * 20
    prompts = [
        tuple(chat.encode([Message("system", rules), Message("user", f"Letter {i}")])) for i in range(8)
    ]
    engine = make_engine()
    outputs = run(
        engine,
        [Request(f"r{i}", p, replace(GREEDY, max_tokens=1), park=False) for i, p in enumerate(prompts)],
    )
    shared = len(prompts[0]) - 8
    cached = sorted(outputs[f"r{i}"][-1].usage.n_cached for i in range(8))  # type: ignore[union-attr]
    assert cached[0] == 0
    assert min(cached[1:]) >= shared - 4
    assert engine.n_prompt_tokens_done <= len(prompts[0]) + 7 * 16


@pytest.mark.slow
def test_short_conversations_are_kept_for_their_next_turn_unless_many_are_answered_at_once(
    make_engine: MakeEngine, chat: ChatFormat
) -> None:
    """Attention walks over the cells of all conversations: those of a crowd would make each other slower than computing them again."""
    engine, short = make_engine(n_seq_max=32), replace(GREEDY, max_tokens=1)
    run(engine, [Request("alone", question(chat, "Who is there?"), short)])
    n_kept, _ = engine.kv_cells
    assert n_kept > 0
    crowd = [Request(f"r{i}", question(chat, f"{i}, who is there?"), short) for i in range(12)]
    run(engine, crowd)
    assert 2 * n_kept < engine.kv_cells[0] < 11 * n_kept, "the first that end are not kept, the last ones are"


@pytest.mark.slow
def test_when_cells_run_short_the_youngest_waits_and_nothing_is_lost(
    make_engine: MakeEngine, smol: Model, chat: ChatFormat
) -> None:
    """Four answers that together need twice the cells that there are."""
    no_end = {token: -100.0 for token in range(smol.vocab.n_tokens) if smol.vocab.is_end(token)}
    sampling = SamplingParams(temperature=0, max_tokens=90, logit_bias=no_end)
    requests = [Request(f"r{i}", question(chat, f"Count from {i}"), sampling) for i in range(4)]
    together = run(make_engine(n_ctx=256), requests)
    for request in requests:
        alone = run(make_engine(n_ctx=256), [request])[request.id]
        assert len(tokens_of(together[request.id])) == 90
        assert_same_up_to_ties(smol, request.prompt, tokens_of(alone), tokens_of(together[request.id]))


LABELS = ["positive", "negative", "neutral", "very positive", "very negative", "very"]


@pytest.mark.slow
def test_label_probabilities_are_those_of_the_whole_texts(
    make_engine: MakeEngine, smol: Model, chat: ChatFormat
) -> None:
    prompt = question(chat, "I love this film. Is that positive or negative?")
    labels = tuple(Label(text, tuple(chat.encode_answer(text))) for text in LABELS)
    assert any(a.tokens != b.tokens and b.tokens[: len(a.tokens)] == a.tokens for a in labels for b in labels)
    (output,) = run(make_engine(), [Request("r", prompt, GREEDY, labels=labels)])["r"]

    def by_brute_force(label: Label) -> float:
        """Compute the whole text, and sum up its tokens; of a label that others begin with, the end of the answer too."""
        rows = log_softmax(logits_after(smol, [*prompt, *label.tokens], len(label.tokens) + 1))
        total = sum(float(row[token]) for row, token in zip(rows, label.tokens, strict=False))
        if any(
            len(o.tokens) > len(label.tokens) and o.tokens[: len(label.tokens)] == label.tokens
            for o in labels
        ):
            ends = [token for token in range(smol.vocab.n_tokens) if smol.vocab.is_end(token)]
            total += float(np.log(np.exp(rows[-1][ends]).sum()))
        return total

    weights = np.exp([by_brute_force(label) for label in labels])
    assert np.allclose(output.label_probs, weights / weights.sum(), atol=0.02)
    assert sum(output.label_probs) == pytest.approx(1)
    assert output.text == LABELS[int(np.argmax(output.label_probs))]
    assert output.finish_reason == "stop"


@pytest.mark.slow
def test_labels_of_many_requests_share_their_instruction(make_engine: MakeEngine, chat: ChatFormat) -> None:
    texts = ["great", "awful", "fine", "superb", "boring", "so so", "wonderful", "terrible"]
    labels = tuple(Label(text, tuple(chat.encode_answer(text))) for text in LABELS)
    rules = Message("system", "You say how a text sounds: positive, negative or neutral. " * 4)
    requests = [
        Request(text, tuple(chat.encode([rules, Message("user", text)])), GREEDY, labels=labels, park=False)
        for text in texts
    ]
    engine = make_engine()
    together = run(engine, requests)
    for request in requests:
        (alone,) = run(make_engine(), [request])[request.id]
        assert np.allclose(alone.label_probs, together[request.id][-1].label_probs, atol=0.05)
    assert engine.n_prompt_tokens_done < sum(len(request.prompt) for request in requests) / 2


COPY = "the cat sat on the mat and the dog lay on the rug, " * 4


@pytest.mark.slow
def test_drafts_change_nothing_but_the_number_of_steps(make_engine: MakeEngine, smol: Model) -> None:
    prompt = tuple(smol.vocab.tokenize(COPY * 2))
    sampling = SamplingParams(temperature=0, max_tokens=60)

    def steps(speculate: bool) -> tuple[int, list[int], Output]:
        engine = make_engine()
        engine.add(Request("r", prompt, sampling, continues_text=True, speculate=speculate))
        n, tokens = 0, []
        while engine.has_work:
            outputs = engine.step()
            n += 1
            tokens += tokens_of(outputs)
        return n, tokens, outputs[-1]

    n_plain, plain, _ = steps(False)
    n_drafted, drafted, last = steps(True)
    assert_same_up_to_ties(smol, prompt, plain, drafted)
    assert last.usage is not None
    # how many are accepted depends on the processor's rounding: 9 on one, 30 on another; each saves one step
    assert last.usage.n_accepted > 0
    assert n_drafted == n_plain - last.usage.n_accepted
    assert len(drafted) == 60


@pytest.mark.slow
def test_drafts_respect_max_tokens_stops_and_a_full_context(make_engine: MakeEngine, smol: Model) -> None:
    prompt = smol.vocab.tokenize(COPY * 2)
    for max_tokens in (1, 2, 3, 7):
        engine = make_engine()
        engine.add(Request("r", tuple(prompt), replace(GREEDY, max_tokens=max_tokens), speculate=True))
        _, last = finish(engine)
        assert last.usage is not None
        assert (last.usage.n_generated, last.finish_reason) == (max_tokens, "length")
    engine = make_engine(n_ctx=256)
    engine.add(Request("r", tuple(prompt[:230]), replace(GREEDY, max_tokens=None), speculate=True))
    _, last = finish(engine)
    assert last.usage is not None
    assert last.usage.n_prompt + last.usage.n_generated == 257
    engine = make_engine()
    engine.add(Request("r", tuple(prompt), replace(GREEDY, max_tokens=60, stop=("rug",)), speculate=True))
    text, last = finish(engine)
    assert "rug" not in text
    assert last.finish_reason == "stop"


@pytest.mark.slow
def test_a_text_on_disk_need_not_be_computed_by_the_next_process(
    smol: Model, chat: ChatFormat, tmp_path: Path
) -> None:
    def engine() -> Engine:
        return Engine(smol, Context(smol, PLACEMENT), KvStore(tmp_path, "key", 1 << 30))

    prompt = question(chat, "Tell me about the sea. " * 20)
    first = engine()
    first.add(Request("r", prompt, GREEDY, persist=True))
    text, last = finish(first)
    first.close()
    (path,) = tmp_path.rglob("*.kv")
    assert path.stat().st_mode & 0o077 == 0

    second = engine()
    longer = (*prompt, *chat.encode_answer(text), *chat.encode([Message("user", "Go on.")]))
    warm, resumed = answered(second, longer, 16)
    assert resumed.usage is not None
    assert last.usage is not None
    assert resumed.usage.n_cached >= len(prompt)
    assert second.n_prompt_tokens_done < 40

    cold, _ = answered(Engine(smol, Context(smol, PLACEMENT)), longer, 16)
    assert_same_up_to_ties(smol, longer, cold, warm)

    raw = bytearray(path.read_bytes())
    raw[-100] ^= 1
    path.write_bytes(raw)
    third = engine()
    third.add(Request("r", prompt, GREEDY))
    _, last = finish(third)
    assert last.usage is not None
    assert last.usage.n_cached == 0
    assert not path.exists(), "a file that does not check is removed"


def test_a_full_queue_turns_away(make_engine: MakeEngine, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("mixcli.engine.engine.MAX_WAITING", 3)
    engine = make_engine()
    for i in range(3):
        engine.add(Request(f"r{i}", (5, 6, 7), GREEDY))
    with pytest.raises(Busy, match="3 requests are queued"):
        engine.add(Request("late", (5, 6, 7), GREEDY))
    for i in range(3):
        engine.abort(f"r{i}")
    finish(engine)
    ask(engine, [5, 6, 7], temperature=0, max_tokens=2)


def resident() -> int:
    """Bytes of this process in memory."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * 4096


@pytest.mark.slow
def test_a_thousand_requests_are_all_accounted_for(tmp_path: Path) -> None:
    """Random lengths, labels, drafts, aborts on a generated model; nothing is lost, nothing is held at the end, and memory stays flat."""
    path = write_model(tmp_path / "tiny.gguf", resized(shape_named("mid", 1), 512, 256))
    placement = replace(PLACEMENT, n_ctx=512)
    chance = random.Random(5)
    digits = ConstraintSpec.of("regex", "[0-9]{2,20}")
    labels = tuple(Label(str(tokens), tokens) for tokens in ((5,), (6, 7), (6, 8, 9), (6,), (10, 11, 12)))

    def request(i: int) -> Request:
        return Request(
            f"r{i}",
            tuple(5 + chance.randrange(3) for _ in range(chance.randrange(1, 60))),
            SamplingParams(max_tokens=chance.randrange(1, 9), seed=i, temperature=chance.choice([0.0, 1.0])),
            labels=labels if chance.random() < 0.2 else (),
            constraint=digits if chance.random() < 0.1 else None,
            top_logprobs=chance.choice([None, 3]),
            speculate=chance.random() < 0.3,
            park=chance.random() < 0.5,
        )

    with Model.load(path, placement) as model, Context(model, placement) as context:
        engine = Engine(model, context)
        requests = {f"r{i}": request(i) for i in range(1000)}
        todo, ended, aborted = list(requests.values()), {}, set()
        sizes = []
        while todo or engine.has_work:
            while todo and engine.n_waiting < 40:
                engine.add(todo.pop())
            if chance.random() < 0.2 and engine.ids():
                victim = chance.choice(sorted(engine.ids()))
                aborted.add(victim)
                engine.abort(victim)
            for output in engine.step():
                assert output.error is None
                if output.finish_reason:
                    assert output.id not in ended
                    ended[output.id] = output
            sizes.append(resident())
        assert ended.keys() == requests.keys()
        assert {name for name, output in ended.items() if output.finish_reason == "abort"} == aborted
        for name, output in ended.items():
            limit = requests[name].sampling.max_tokens
            assert output.usage is not None
            if requests[name].labels:
                assert output.finish_reason == "abort" or sum(output.label_probs) == pytest.approx(1)
            else:
                assert output.usage.n_generated <= (limit or 0)
        assert max(sizes) <= 1.05 * sizes[len(sizes) // 5]
        ask(engine, [9] * 512, temperature=0)  # the whole cache can be had
        for name in chance.sample(sorted(requests.keys() - aborted), 20):  # alone it is the same answer
            one = Engine(model, Context(model, placement))
            one.add(requests[name])
            _, alone = finish(one)
            assert alone.finish_reason == ended[name].finish_reason
            if requests[name].labels:
                assert np.allclose(alone.label_probs, ended[name].label_probs, atol=1e-3)


@pytest.mark.slow
def test_questions_about_one_text_compute_it_once(make_engine: MakeEngine, chat: ChatFormat) -> None:
    """Also where an answer is there as soon as its prompt is, and other texts have the same instruction: what the next questions begin with stays."""
    rules = Message("system", "Answer with yes or no, and be fair to the writer. " * 3)
    labels = tuple(Label(one, tuple(chat.encode_answer(one))) for one in ("yes", "no"))
    texts = [f"{i}: the parcel came late and the box of item {i} was torn. " * 9 for i in range(3)]
    asked = [
        Request(
            f"{text}{n}",
            tuple(chat.encode([rules, Message("user", f"{text}{n}. Is it so?")])),
            GREEDY,
            labels=labels,
            park=False,
        )
        for text in texts
        for n in range(3)
    ]
    engine = make_engine(n_ctx=4096, n_seq_max=64)
    run(engine, asked)
    n_different = len({one.prompt[: i + 1] for one in asked for i in range(len(one.prompt))})
    n_all = sum(len(one.prompt) for one in asked)
    n_texts = sum(len(chat.encode_answer(text)) for text in texts)
    assert n_all > n_different + 1.5 * n_texts, "computed for each question, the texts would be seen here"
    # a busy machine takes shorter steps, and may compute the end of one text twice; for each question it would be 2 * n_texts
    assert engine.n_prompt_tokens_done < n_different + 0.5 * n_texts
    engine.check()
