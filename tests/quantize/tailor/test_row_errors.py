"""What types do to rows: those of the quantizers, and close to it for types that are measured on few rows."""

import numpy as np
import pytest
from numpy.typing import NDArray

from quantize import ggml
from quantize.ggml_types import GGMLQuantizationType as T
from quantize.tailor.row_errors import FEW, RowErrors

RANDOM = np.random.default_rng(3)
N_COLUMNS = 256
WEIGHTS = RANDOM.uniform(0.5, 2, N_COLUMNS).astype(np.float32)
IMPORTANCE = RANDOM.uniform(0.5, 2, N_COLUMNS).astype(np.float32)


def rows(n: int) -> NDArray[np.float32]:
    """Return rows of widths that differ, as those of models do."""
    widths = RANDOM.uniform(0.01, 0.04, (n, 1))
    return (widths * RANDOM.standard_normal((n, N_COLUMNS))).astype(np.float32)


def exact(type_: T, values: NDArray[np.float32]) -> NDArray[np.float32]:
    raw = ggml.quantize_chunk(type_, values, IMPORTANCE)
    return np.asarray(np.square(ggml.dequantize(type_, raw, N_COLUMNS) - values) @ WEIGHTS)


@pytest.mark.parametrize("slow", [T.IQ3_S, T.IQ3_XXS])
def test_a_slow_type_is_measured_on_few_rows_and_is_close(slow: T) -> None:
    types, values = (slow, T.Q3_K, T.Q8_0), rows(3 * FEW)
    found = RowErrors(types, [True], 0)(values, WEIGHTS, IMPORTANCE)
    np.testing.assert_allclose(found[1], exact(T.Q3_K, values), rtol=1e-5)
    every = exact(slow, values)
    assert found[0].sum() == pytest.approx(every.sum(), rel=0.03)
    assert np.corrcoef(found[0], every)[0, 1] > 0.9, "rows differ as they really do"
    assert not np.allclose(found[0], every, rtol=1e-3), "only some rows are measured"


def test_a_slow_type_is_measured_whole_where_rows_are_few_or_nothing_is_near() -> None:
    values = rows(2 * FEW - 1)
    for types in ((T.Q3_K, T.IQ3_S), (T.IQ3_S,)):
        found = RowErrors(types, [True], 0)(values, WEIGHTS, IMPORTANCE)
        np.testing.assert_allclose(found[types.index(T.IQ3_S)].sum(), exact(T.IQ3_S, values).sum(), rtol=1e-5)


def test_zeros_lose_nothing_and_what_does_not_fit_all() -> None:
    zeros = np.zeros((2 * FEW, N_COLUMNS), np.float32)
    found = RowErrors((T.Q3_K, T.IQ3_S), [True], 0)(zeros, WEIGHTS, IMPORTANCE)
    assert not found.any()
    narrow = np.ones((4, 32), np.float32)
    found = RowErrors((T.Q3_K, T.Q8_0), [False], 0)(narrow, WEIGHTS[:32], None)
    assert np.isinf(found[0]).all()
    assert np.isfinite(found[1]).all()
