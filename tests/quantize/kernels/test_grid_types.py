"""The compiled quantizers of IQ2 and IQ3 types against the library's, byte for byte, within what the encoder lets through."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from quantize import ggml
from quantize.ggml_types import GGMLQuantizationType
from quantize.kernels.check import LARGEST_ON_A_GRID, hostile_rows, importances, usual_rows
from quantize.kernels.dispatch import quantizer
from tests.quantize.kernels.blocks import super_blocks

pytest.importorskip("numba")

WITH_IMATRIX = [(name, True) for name in ("IQ3_XXS", "IQ3_S", "IQ2_XXS", "IQ2_XS", "IQ2_S")]
WITHOUT = [(name, False) for name in ("IQ3_XXS", "IQ3_S", "IQ2_S")]
every_type = pytest.mark.parametrize(("name", "weighted"), WITH_IMATRIX + WITHOUT)


def assert_same(name: str, rows: NDArray[np.float32], imatrix: NDArray[np.float32] | None) -> None:
    fast = quantizer(name, imatrix is not None)
    assert fast is not None
    ours, theirs = fast(rows, imatrix), ggml.quantize_chunk(GGMLQuantizationType[name], rows, imatrix)
    assert np.flatnonzero((ours != theirs).any(axis=1)).tolist() == [], "rows that differ"


@pytest.mark.slow
@every_type
def test_bytes_are_the_librarys(name: str, weighted: bool) -> None:
    for rows in (
        usual_rows(seed=21),
        hostile_rows(seed=22, largest=LARGEST_ON_A_GRID),
        usual_rows(5, 14336, seed=23),
    ):
        assert_same(name, rows, importances(rows.shape[1], seed=24) if weighted else None)


@pytest.mark.slow
@every_type
def test_any_number_of_blocks_and_columns(name: str, weighted: bool) -> None:
    for n_rows, n_cols in ((0, 256), (1, 256), (3, 256), (5, 256), (2, 768)):
        rows = usual_rows(5, n_cols, seed=25)[:n_rows]
        assert_same(name, rows, importances(n_cols, seed=26) if weighted else None)


@pytest.mark.slow
@every_type
def test_tails_and_sub_blocks_of_zeros(name: str, weighted: bool) -> None:
    random = np.random.default_rng(27)
    heavy = random.standard_t(2, (24, 1024)).astype(np.float32)
    holes = np.where(np.repeat(random.random((24, 64)) < 0.3, 16, axis=1), 0, heavy)
    for rows in (heavy, holes):
        for imatrix in (random.random(1024), random.random(1024) > 0.5, np.zeros(1024), np.full(1024, 1e15)):
            assert_same(name, rows, imatrix.astype(np.float32) if weighted else None)


_value = st.floats(-LARGEST_ON_A_GRID, LARGEST_ON_A_GRID, width=32)


@pytest.mark.slow
@settings(max_examples=60, deadline=None)
@given(data=super_blocks(_value, 1e-15, 1e-38, 1e-45, 1e9), weight=st.floats(0, 100, width=32))
def test_blocks_that_nobody_thought_of(data: list[list[float]], weight: float) -> None:
    rows = np.array(data, np.float32).reshape(1, 256)
    imatrix = np.tile(np.array([1, weight], np.float32), 128)
    for name, weighted in WITH_IMATRIX + WITHOUT:
        assert_same(name, rows, imatrix if weighted else None)


def test_without_an_importance_matrix_the_library_refuses() -> None:
    assert quantizer("IQ2_XXS") is None
    assert quantizer("IQ2_XS") is None
