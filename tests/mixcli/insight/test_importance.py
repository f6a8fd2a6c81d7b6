"""Sums of squares: the order of additions, experts, stacks of matrices, smoothing, coverage."""

import numpy as np
import pytest

from mixcli.errors import IntegrityError
from mixcli.insight import importance
from mixcli.insight.importance import Floats, Importance, ImportanceSums, coverage, n_chunks_of, smoothed

RANDOM = np.random.default_rng(5)


def drawn(*shape: int) -> Floats:
    return (RANDOM.standard_normal(shape) * RANDOM.choice([1e-3, 1, 50], shape)).astype(np.float32)


def one_by_one(total: Floats, rows: Floats) -> Floats:
    for row in rows:
        total = total + row * row
    return total


@pytest.fixture(autouse=True, params=[7, 100])
def rows_in_a_block(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Let inputs take several blocks, of which the last is not full."""
    monkeypatch.setattr(importance, "BLOCK", request.param * 24)


def test_rows_are_added_one_after_the_other() -> None:
    first, second = drawn(1, 1, 300, 40), drawn(1, 1, 17, 40)
    sums = ImportanceSums()
    for values in (first, second):
        for weight in ("q", "k"):  # they share their input
            sums.add(weight, (1, 1), values)
    wanted = one_by_one(np.zeros(40, np.float32), np.concatenate([first[0, 0], second[0, 0]]))
    assert (
        wanted.tobytes() != (np.concatenate([first, second], axis=2)[0, 0] ** 2).sum(axis=0)[::-1].tobytes()
    )
    for weight in ("q", "k"):
        assert sums.entries[weight].sums.tobytes() == wanted.tobytes()
        assert sums.entries[weight].counts.tolist() == [317]


@pytest.mark.parametrize("n_inputs", [1, 2])
def test_experts_get_first_choices_before_second_ones(n_inputs: int) -> None:
    n_tokens, n_expert = 60, 5
    values = drawn(1, n_tokens, n_inputs, 24)
    experts = np.array([RANDOM.choice(n_expert - 1, 2, replace=False) for _ in range(n_tokens)], np.int32)
    sums = ImportanceSums()
    for weight in ("gate", "up"):
        sums.add_experts(weight, n_expert, values, experts)
    wanted = np.zeros((n_expert, 24), np.float32)
    for choice in range(2):
        for token in range(n_tokens):
            expert, x = experts[token, choice], values[0, token, choice % n_inputs]
            wanted[expert] = wanted[expert] + x * x
    for entry in sums.entries.values():
        assert entry.sums.tobytes() == wanted.tobytes()
        assert entry.counts.tolist() == np.bincount(experts.ravel(), minlength=n_expert).tolist()
    assert entry.counts[-1] == 0


def test_matrices_with_one_input_but_other_sums_before_are_not_taken_for_the_same() -> None:
    """A matrix that saw an input alone, and experts that were chosen otherwise, have sums of their own."""
    first, second = drawn(1, 1, 30, 8), drawn(1, 1, 30, 8)
    sums = ImportanceSums()
    sums.add("q", (1, 1), first)
    for weight in ("q", "k"):
        sums.add(weight, (1, 1), second)
    assert (
        sums.entries["q"].sums.tobytes()
        == one_by_one(np.zeros(8, np.float32), np.concatenate([first, second], axis=2)[0, 0]).tobytes()
    )
    assert sums.entries["k"].sums.tobytes() == one_by_one(np.zeros(8, np.float32), second[0, 0]).tobytes()

    values = drawn(1, 30, 1, 8)
    for weight, expert in (("up", 0), ("gate", 1)):
        sums.add_experts(weight, 2, values, np.full((30, 1), expert, np.int32))
        wanted = one_by_one(np.zeros(8, np.float32), values[0, :, 0])
        assert sums.entries[weight].sums[expert].tobytes() == wanted.tobytes()
        assert not sums.entries[weight].sums[1 - expert].any()


def test_a_stack_of_matrices_has_sums_of_its_own_and_one_count() -> None:
    values = drawn(1, 3, 20, 8)  # one input for each of three heads
    sums = ImportanceSums()
    sums.add("stack", (3, 1), values)
    sums.add("matrix", (1, 1), values)
    for head in range(3):
        wanted = one_by_one(np.zeros(8, np.float32), values[0, head])
        assert sums.entries["stack"].sums[head].tobytes() == wanted.tobytes()
    assert sums.entries["stack"].counts.tolist() == [20]
    assert (
        sums.entries["matrix"].sums.tobytes()
        == one_by_one(np.zeros(8, np.float32), values.reshape(-1, 8)).tobytes()
    )
    assert sums.entries["matrix"].counts.tolist() == [60]


def test_values_that_are_not_finite_are_refused_by_name() -> None:
    values = drawn(1, 20, 1, 8)
    values[0, 3, 0, 5] = np.inf
    with pytest.raises(IntegrityError, match=r"not finite in front of blk\.1\.ffn_up_exps\.weight"):
        ImportanceSums().add_experts("blk.1.ffn_up_exps.weight", 2, values, np.zeros((20, 1), np.int32))


def test_smoothing_brings_rare_experts_to_a_number_of_average_tokens() -> None:
    entry = Importance(np.array([[90, 30], [4, 8], [0, 0]], np.float32), np.array([30, 2, 0]))
    dense = Importance(np.array([[5, 5]], np.float32), np.array([1]))
    found = smoothed({"a": entry, "dense": dense}, 10)
    mean = np.array([94, 38]) / 32
    np.testing.assert_allclose(found["a"].sums, [[90, 30], [4, 8] + 8 * mean, 10 * mean], rtol=1e-6)
    assert found["a"].counts.tolist() == [30, 10, 10]
    assert found["dense"] is dense
    assert entry.counts.tolist() == [30, 2, 0], "the sums themselves stay"


def test_coverage_begins_with_the_fewest_tokens() -> None:
    entries = {
        f"blk.{layer}.ffn_{part}_exps.weight": Importance(np.zeros((2, 4), np.float32), np.array(counts))
        for layer, counts in ((0, [512, 12]), (11, [1, 1023]))
        for part in ("up", "down")
    }
    entries["blk.0.attn_q.weight"] = Importance(np.zeros((1, 4), np.float32), np.array([512]))
    found = coverage(entries)
    assert [one.words for one in found[:2]] == [
        "expert 0 of layer 11: 1 token",
        "expert 1 of layer 0: 12 tokens",
    ]
    assert len(found) == 4
    assert n_chunks_of(entries, 512) == 1
