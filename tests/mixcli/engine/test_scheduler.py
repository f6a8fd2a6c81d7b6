"""The scheduler without a model: what it chooses is carried out by a few lines that only count."""

import random

import hypothesis.strategies as st
import numpy as np
import pytest
from hypothesis import given, settings

from mixcli.engine.labels import LabelScores
from mixcli.engine.pace import CROWD, FEW, PAIR, TILE, StepLimits
from mixcli.engine.sequence import Sequence, SequenceStatus
from tests.mixcli.engine.machine import END, LOGITS, N_CTX, Machine, answer

prompts = st.lists(st.integers(1, 3), min_size=1, max_size=100)


@settings(max_examples=100, deadline=None)
@given(
    st.lists(st.tuples(prompts, st.integers(0, 6)), min_size=1, max_size=12),
    st.integers(2, 8),
    st.sampled_from([8, 32, 256]),
    st.sampled_from([4, 16]),
    st.integers(0, 2**32),
    st.booleans(),
    st.sampled_from([1, 6, 1000]),
    st.sampled_from([None, StepLimits(1, 4), StepLimits(12, 8), StepLimits(8, 100), StepLimits(PAIR, 200)]),
)
def test_every_sequence_ends_with_its_own_text(
    asked: list[tuple[list[int], int]],
    n_slots: int,
    n_batch: int,
    n_ubatch: int,
    seed: int,
    shared: bool,
    n_rows: int,
    limits: StepLimits | None,
) -> None:
    """No token is lost, none comes twice, the cells are never overdrawn, and everybody ends, whatever is asked, drafted or aborted."""
    machine = Machine(
        n_slots=n_slots,
        n_batch=n_batch,
        n_ubatch=n_ubatch,
        max_running=max(1, n_slots // 2),
        n_rows=n_rows,
        limits=limits,
    )
    chance = random.Random(seed)
    beginning = [2] * 40 if shared else []
    todo = [(f"r{i}", [*beginning, *prompt][:N_CTX], late) for i, (prompt, late) in enumerate(asked)]
    sequences: dict[str, Sequence] = {}
    aborted = set()
    for n in range(3000):
        for name, prompt, late in todo:
            if late == n:
                sequences[name] = machine.ask(name, prompt)
        for sequence in machine.scheduler.running:
            if sequence.is_decoding and chance.random() < 0.3:
                room = N_CTX - len(sequence.tokens)
                true = answer(sequence.tokens)[len(sequence.tokens) :]
                sequence.drafts = [*true[: chance.randrange(3)], chance.randrange(1, 24)][: max(0, room)]
        if chance.random() < 0.03 and machine.scheduler.running:
            victim = chance.choice(machine.scheduler.running)
            machine.scheduler.remove(victim)
            machine.cache.retain(victim.slot)  # type: ignore[arg-type]
            aborted.add(victim.id)
        machine.step()
        if len(machine.finished) + len(aborted) == len(todo):
            break
    assert machine.finished.keys() | aborted == {name for name, _, _ in todo}
    for name, prompt, _ in todo:
        if name in machine.finished:
            assert machine.finished[name] == answer(prompt)
    assert machine.cache.make_room(N_CTX), "nobody holds anything any more"


words = st.lists(st.integers(1, 3), min_size=1, max_size=40).map(tuple)
label_sets = st.one_of(
    st.lists(
        st.lists(st.integers(1, 5), min_size=1, max_size=4).map(tuple), min_size=2, max_size=40, unique=True
    ),
    st.lists(words, min_size=2, max_size=12, unique=True),
    st.tuples(words, st.integers(2, 30)).map(
        lambda one: [(*one[0], i) for i in range(one[1])]
    ),  # one long beginning
    words.map(lambda one: [one[:n] for n in range(1, len(one) + 1)]),  # each begins with the one before
)


@settings(max_examples=150, deadline=None)
@given(
    st.lists(st.tuples(st.integers(1, 80), label_sets), min_size=1, max_size=5),
    st.lists(prompts, max_size=4),
    st.integers(1, 8),
    st.sampled_from([1, 2, 8, 64]),
    st.sampled_from([8, 40, 1000]),
    st.sampled_from([1, 6, 1000]),
    st.booleans(),
)
def test_labels_are_scored_whatever_room_there_is(
    asked: list[tuple[int, list[tuple[int, ...]]]],
    writers: list[list[int]],
    n_slots: int,
    n_batch: int,
    n_ids: int,
    n_rows: int,
    tight: bool,
) -> None:
    """However long, many or alike labels are, and however few tokens, slots, ids and cells a step has: each request ends, with right scores."""
    machine = Machine(
        n_slots=n_slots,
        n_batch=n_batch,
        n_ubatch=min(4, n_batch),
        max_running=max(1, n_slots // 2),
        n_ids=max(n_ids, n_slots),
        n_rows=n_rows,
    )
    found = {}
    for i, (n_prompt, labels) in enumerate(asked):
        room = N_CTX - LabelScores(labels, [END]).n_longest
        prompt = [7 + i] * (room if tight else min(n_prompt, room))
        found[f"r{i}"] = machine.ask(f"r{i}", prompt, tuple(labels)), labels
    for i, prompt in enumerate(writers):
        machine.ask(f"w{i}", prompt)
    for _ in range(20_000):
        machine.step()
        if len(machine.finished) == len(asked) + len(writers):
            break
    assert len(machine.finished) == len(asked) + len(writers)
    for sequence, labels in found.values():
        assert sequence.scores is not None
        assert np.allclose(sequence.scores.probabilities(), by_hand(labels))
        assert sequence.tokens == list(sequence.request.prompt)
    assert machine.cache.make_room(N_CTX), "nobody holds anything any more"


def by_hand(labels: list[tuple[int, ...]]) -> list[float]:
    """Probabilities where each place has the same logits."""
    log_p = LOGITS - np.log(np.exp(LOGITS).sum())
    sums = [
        sum(log_p[token] for token in label)
        + (log_p[END] if any(o[: len(label)] == label for o in labels if o != label) else 0)
        for label in labels
    ]
    weights = np.exp(np.array(sums) - max(sums))
    return list(weights / weights.sum())


def test_a_long_beginning_that_labels_share_is_computed_once() -> None:
    """63 labels share 200 tokens: neither more ids than a batch has, nor the beginning again for each of them."""
    machine = Machine(
        n_cells=1024, n_slots=64, n_batch=256, n_ubatch=256, max_running=32, n_ids=4 * 256 + 256
    )
    machine.ask("r", [9] * 10, tuple((*[8] * 200, i, 3) for i in range(1, 64)))
    while "r" not in machine.finished:
        machine.step()
    assert sum(machine.computed) == 10 + 200 + 63
    assert len(machine.computed) <= 1 + 4 + 1


def test_labels_that_fit_take_one_step_behind_the_prompt() -> None:
    machine = Machine(n_slots=16)
    machine.ask("r", [9] * 10, ((1, 2, 3), (1, 2, 4), (1, 5), (2, 3), (4,)))
    machine.step()
    machine.step()
    assert machine.finished.keys() == {"r"}
    assert machine.computed == [10, 3]


def test_a_label_longer_than_a_step_is_split() -> None:
    machine = Machine(n_cells=1024, n_slots=4, n_batch=32, n_ubatch=32, max_running=2)
    machine.ask("r", [9] * 10, ((*[1] * 600,), (2,)))
    while "r" not in machine.finished:
        machine.step()
    assert machine.computed == [10, *[32] * 18, 599 - 18 * 32]


def test_prompts_are_packed_into_one_step_and_a_shared_beginning_is_computed_once() -> None:
    machine = Machine(n_cells=1024, n_slots=16, n_batch=256, n_ubatch=256, max_running=8)
    for i in range(8):
        machine.ask(f"r{i}", [*[9] * 40, i + 1, i + 2])
    machine.step()
    machine.step()
    assert machine.computed == [42, 1 + 7 * 2]


def test_one_long_prompt_does_not_silence_a_writer() -> None:
    machine = Machine(
        n_cells=1024, n_slots=8, n_batch=512, n_ubatch=256, max_running=4, limits=StepLimits(50, 100)
    )
    machine.ask("writer", [1, 2, 3])
    machine.step()
    machine.ask("reader", [5] * 300)
    step = machine.step()
    assert [chunk.n_tokens for chunk in step.chunks] == [1, 49]


@pytest.mark.parametrize("n_writing", [CROWD - 1, CROWD])
@pytest.mark.parametrize("awaited", [TILE, PAIR, FEW * TILE])
def test_prompts_beside_a_crowd_have_every_other_step_for_themselves(n_writing: int, awaited: int) -> None:
    machine = Machine(
        n_cells=4096, n_slots=32, n_batch=512, n_ubatch=512, max_running=16, limits=StepLimits(awaited, 512)
    )
    for n in range(n_writing):
        machine.ask(f"writer {n}", [10 + n] * 3)
    machine.step()
    for n in range(4):
        machine.ask(f"reader {n}", [40 + n] * 150)
    machine.step()  # lets them in
    steps = [machine.step() for _ in range(3)]
    n_writers = [sum(len(one.sequence.request.prompt) == 3 for one in step.chunks) for step in steps]
    is_apart = n_writing == CROWD and awaited == PAIR
    assert n_writers == [0 if is_apart and n % 2 == 0 else n_writing for n in range(3)]
    assert all(step.n_tokens <= awaited for step in steps)
    if is_apart:
        assert [step.n_tokens for step in steps] == [PAIR, TILE - 1, PAIR]


def test_a_short_prompt_gets_in_beside_a_long_one_that_is_not_starved() -> None:
    """Each short prompt takes one step, the piece of the long one in it is short; alone, the long one has the whole batch."""
    machine = Machine(
        n_cells=8192, n_slots=8, n_batch=256, n_ubatch=256, max_running=4, limits=StepLimits(64, 256)
    )
    long = machine.ask("long", [5] * 2000)
    machine.step()
    for n in range(8):
        short = machine.ask(f"short {n}", [6 + n] * 40)
        before = long.n_computed
        step = machine.step()
        assert short.n_computed >= 40, "read whole in one step"
        assert 16 <= long.n_computed - before <= 64
        assert machine.n_new(step) <= 64 + 40
        if short in machine.scheduler.running:
            machine.finish(short)
    before = long.n_computed
    machine.step()
    assert long.n_computed - before == 256


def test_prompts_that_end_in_a_step_are_packed_whatever_its_time() -> None:
    machine = Machine(
        n_cells=1024, n_slots=16, n_batch=256, n_ubatch=256, max_running=8, limits=StepLimits(32, 256)
    )
    for i in range(8):
        machine.ask(f"r{i}", [20 + i] * 30)
    assert machine.n_new(machine.step()) == 240


def test_a_prompt_alone_takes_the_whole_batch() -> None:
    machine = Machine(n_cells=1024, n_batch=64, n_ubatch=16)
    machine.ask("reader", [5] * 100)
    assert [chunk.n_tokens for chunk in machine.step().chunks] == [64]


def test_the_youngest_makes_room_and_comes_back() -> None:
    machine = Machine(n_cells=128, n_slots=8, max_running=4, n_batch=256)
    old = machine.ask("old", [1] * 3 + [4] * 50)
    young = machine.ask("young", [2] * 3 + [5] * 40)
    machine.step()
    assert machine.scheduler.running == [old, young]
    old.tokens += [6] * 34  # as if it had written
    machine.cache.extend(old.slot, [6] * 34)  # type: ignore[arg-type]
    old.n_computed += 34
    machine.scheduler.schedule()
    assert machine.scheduler.running == [old]
    assert young.status is SequenceStatus.WAITING
    assert machine.scheduler.waiting[0] is young


def test_first_come_first_served() -> None:
    machine = Machine(n_cells=128, n_slots=8, max_running=4, n_batch=256)
    for name, n in (("a", 60), ("b", 60), ("c", 5)):
        machine.ask(name, [ord(name)] * n)
    machine.step()
    assert [s.id for s in machine.scheduler.running][:1] == ["a"]
    assert "c" not in [s.id for s in machine.scheduler.running], "c must not overtake b"
