"""Types of a whole model: what is free, what is pinned, and a tensor that no candidate fits."""

import numpy as np
import pytest

from quantize.ggml_types import GGMLQuantizationType as T
from quantize.recipe import choose_types
from quantize.source import ModelSource
from quantize.tailor.choice import CANDIDATES, TailoringProblem, bytes_of, is_free, pins
from tests.quantize.tiny import model_of, random_weights


def mixture(n_ff: int = 256) -> ModelSource:
    return model_of(random_weights(n_layer=2, n_embd=256, n_ff=n_ff, n_expert=4))


def problem(model: ModelSource) -> TailoringProblem:
    """Return losses that halve from type to type; infinite where the rows are not whole blocks."""
    costs = {}
    for one in model.tensors:
        if is_free(one):
            fits = np.array([one.shape[-1] % (32 if kind == T.Q8_0 else 256) == 0 for kind in CANDIDATES])
            costs[one.name] = np.where(fits, 0.5 ** np.arange(len(CANDIDATES)), np.inf)
    return TailoringProblem(model.tensors, CANDIDATES, costs)


def test_attention_of_a_mixture_keeps_more_bits_than_a_mix_has() -> None:
    found = pins(mixture(), choose_types(mixture(), "Q2_K", imatrix=True))
    assert {found[f"blk.0.attn_{part}.weight"] for part in "kv"} == {T.Q8_0}
    assert {found[f"blk.1.attn_{part}.weight"] for part in ("q", "output")} == {T.Q5_K}
    assert found["output.weight"] == T.Q6_K
    assert found["blk.0.ffn_gate_inp.weight"] == T.F32
    dense = model_of(random_weights(n_layer=1, n_embd=256, n_ff=256, n_expert=0))
    mix = choose_types(dense, "Q2_K", imatrix=True)
    assert pins(dense, mix) == mix, "there they are a fifth of all weights"


@pytest.mark.parametrize("share", [0.1, 0.5, 0.9])
def test_a_budget_holds_for_all_weights_together(share: float) -> None:
    model = mixture()
    given, fixed = problem(model), pins(model, choose_types(model, "Q3_K_M", imatrix=True))
    least, most = given.smallest(fixed), given.n_bytes(choose_types(model, "Q8_0"))
    budget = int(least + share * (most - least))
    found, simple = given.within(budget, fixed), given.simply_filled(budget, fixed)
    assert found
    assert simple
    for one in (found, simple):
        assert one.n_bytes == sum(bytes_of(tensor, one.types[tensor.name]) for tensor in model.tensors)
        assert one.n_bytes <= budget
        assert all(one.types[name] == kind for name, kind in fixed.items() if "_exps" not in name)
    assert found.loss <= simple.loss
    assert given.within(least - 1, fixed) is None


def test_a_matrix_that_no_candidate_fits_keeps_the_type_of_the_mix() -> None:
    model = mixture(n_ff=48)
    given, fixed = problem(model), pins(model, choose_types(model, "Q3_K_M", imatrix=True))
    found = given.within(1 << 30, fixed)
    assert found
    assert {found.types[f"blk.{i}.ffn_down_exps.weight"] for i in range(2)} == {T.F16}
    assert {found.types[f"blk.{i}.ffn_up_exps.weight"] for i in range(2)} == {T.Q8_0}
