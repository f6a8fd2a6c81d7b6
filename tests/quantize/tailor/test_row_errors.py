"""What types do to rows: exactly what the quantizers do."""

import numpy as np
from numpy.typing import NDArray

from quantize import ggml
from quantize.ggml_types import GGMLQuantizationType as T
from quantize.tailor.row_errors import RowErrors

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


def test_errors_are_those_of_the_librarys_bytes() -> None:
    types, values = (T.IQ3_S, T.Q3_K, T.IQ3_XXS, T.Q8_0), rows(130)
    found = RowErrors(types, [True], 0)(values, WEIGHTS, IMPORTANCE)
    for i, one in enumerate(types):
        np.testing.assert_allclose(found[i], exact(one, values), rtol=1e-5)


def test_zeros_lose_nothing_and_what_does_not_fit_all() -> None:
    zeros = np.zeros((128, N_COLUMNS), np.float32)
    found = RowErrors((T.Q3_K, T.IQ3_S), [True], 0)(zeros, WEIGHTS, IMPORTANCE)
    assert not found.any()
    narrow = np.ones((4, 32), np.float32)
    found = RowErrors((T.Q3_K, T.Q8_0), [False], 0)(narrow, WEIGHTS[:32], None)
    assert np.isinf(found[0]).all()
    assert np.isfinite(found[1]).all()
