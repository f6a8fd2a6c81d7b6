"""The allocation: within the budget, nearly all of it used, near the best that any choice can be, and the same every time."""

import time
from itertools import product

import numpy as np
import pytest

from profiles.models import known_models
from quantize.ggml_types import BLOCK, GGMLQuantizationType
from quantize.tailor.allocation import allocate, fill_in_order

TYPES = ("Q2_K", "IQ3_XXS", "Q3_K", "IQ4_XS", "Q4_K", "Q5_K", "Q6_K", "Q8_0")
ERRORS = np.array([1.0, 0.55, 0.42, 0.13, 0.115, 0.035, 0.010, 0.001])  # of one weight, about


def problem(model: str, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Return bytes and losses of the expert tensors of a model; layers and matrices differ in what an error costs, as real ones do."""
    random = np.random.default_rng(seed)
    weights = np.array(
        [np.prod(shape) for name, shape in known_models()[model].tensors() if "_exps." in name], np.int64
    )
    blocks = [BLOCK[GGMLQuantizationType[name]] for name in TYPES]
    sizes = np.array([[n // block * size for block, size in blocks] for n in weights], np.int64)
    costs = random.lognormal(0, 0.8, len(weights))[:, None] * ERRORS
    return sizes, costs * random.lognormal(0, 0.05, costs.shape)


@pytest.mark.parametrize("model", ["mixtral-8x7b", "mixtral-8x22b", "mistral-small-4"])
def test_the_budget_is_kept_and_filled(model: str) -> None:
    random = np.random.default_rng(7)
    for seed in range(67):
        sizes, losses = problem(model, seed)
        least, most = int(sizes.min(axis=1).sum()), int(sizes[:, TYPES.index("Q6_K")].sum())
        budget = int(random.uniform(least * 1.05, most))
        found = allocate(sizes, losses, budget)
        assert found
        assert budget * 0.999 <= found.n_bytes <= budget
        assert found.gap < 0.03
        rows = np.arange(len(sizes))
        assert found.n_bytes == sizes[rows, found.options].sum()
        assert found.loss == pytest.approx(losses[rows, found.options].sum())
        simple = fill_in_order(sizes, losses, budget, random.permutation(len(sizes)))
        assert simple
        assert simple.n_bytes <= budget
        assert simple.loss >= found.loss


def test_nothing_is_better_than_the_best_of_all_choices() -> None:
    random = np.random.default_rng(1)
    for _ in range(40):
        sizes, losses = random.integers(1, 40, (5, 4)), random.random((5, 4))
        losses[random.random((5, 4)) < 0.2] = np.inf
        losses[:, 0] = 2.0
        budget = int(random.integers(sizes.min(axis=1).sum(), sizes.max(axis=1).sum() + 1))
        possible = [
            (sum(losses[i, k] for i, k in enumerate(pick)), pick)
            for pick in product(range(4), repeat=5)
            if sum(sizes[i, k] for i, k in enumerate(pick)) <= budget
        ]
        best = min((loss for loss, _ in possible), default=np.inf)
        found = allocate(sizes, losses, budget)
        if found is None:
            assert best == np.inf
            continue
        assert found.n_bytes <= budget
        assert found.bound <= best * (1 + 1e-9) <= found.loss * (1 + 1e-9)


def test_the_same_problem_has_one_answer_within_a_second() -> None:
    sizes, losses = problem("mixtral-8x22b", 3)
    budget = int(sizes[:, 3].sum())
    started = time.process_time()
    first = allocate(sizes, losses, budget)
    assert time.process_time() - started < 1
    assert first == allocate(sizes, losses, budget)


def test_too_small_a_budget_has_no_answer_and_a_large_one_takes_the_best() -> None:
    sizes, losses = problem("mixtral-8x7b", 1)
    assert allocate(sizes, losses, int(sizes[:, 0].sum()) - 1) is None
    assert fill_in_order(sizes, losses, 1, np.arange(len(sizes))) is None
    found = allocate(sizes, losses, 1 << 50)
    assert found
    assert set(found.options) == {len(TYPES) - 1}
