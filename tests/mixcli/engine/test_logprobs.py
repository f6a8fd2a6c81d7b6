"""Log-probabilities against a plain statement of the softmax."""

import math
from typing import Any

import numpy as np
import pytest

from mixcli.engine.logprobs import log_softmax, token_logprobs


def row(seed: int, n: int = 49152) -> Any:
    return np.random.default_rng(seed).normal(0, 4, n).astype(np.float32)


def plain(logits: Any) -> Any:
    p = np.exp(logits.astype(np.longdouble) - logits.max())
    return np.log(p / p.sum())


@pytest.mark.parametrize("n", [5, 4099, 49152])
def test_agrees_with_the_softmax(n: int) -> None:
    for seed in range(5):
        logits = row(seed, n)
        expected = plain(logits)
        found = token_logprobs(logits, 3, 20)
        order = np.argsort(-logits, kind="stable")[:20]
        assert found.token == 3
        assert found.logprob == pytest.approx(float(expected[3]), abs=1e-5)
        assert [token for token, _ in found.top] == order.tolist()
        assert [logprob for _, logprob in found.top] == pytest.approx(expected[order].astype(float), abs=1e-5)
        assert log_softmax(logits) == pytest.approx(expected.astype(float), abs=1e-9)


def test_equal_logits_come_by_their_id() -> None:
    logits = np.zeros(1024, np.float32)
    assert token_logprobs(logits, 9, 3).top == tuple((i, pytest.approx(-math.log(1024))) for i in range(3))


def test_what_a_constraint_forbids_is_not_listed_and_does_not_count() -> None:
    logits = np.full(4096, -np.inf, np.float32)
    logits[[7, 8]] = 100.0, 100.0
    found = token_logprobs(logits, 8, 20)
    assert found.top == ((7, pytest.approx(-math.log(2))), (8, pytest.approx(-math.log(2))))
    assert found.logprob == pytest.approx(-math.log(2))


def test_many_rows_at_once() -> None:
    rows = np.stack([row(1, 300), row(2, 300)])
    assert np.exp(log_softmax(rows)).sum(axis=1) == pytest.approx([1, 1])
    assert log_softmax(rows)[1] == pytest.approx(log_softmax(rows[1]))


def test_huge_logits_do_not_overflow() -> None:
    assert token_logprobs(np.array([1e38, -1e38], np.float32), 0).logprob == 0
