"""The compiled quantizers against the library's, byte for byte, and what happens where there is none."""

import json
import os
import subprocess
import sys
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from quantize import ggml
from quantize.ggml_types import BLOCK, GGMLQuantizationType
from quantize.kernels.check import agrees, hostile_rows, importances, usual_rows
from quantize.kernels.dispatch import Quantizer, quantizer
from tests.quantize.kernels.blocks import super_blocks

pytest.importorskip("numba")

SMALL = ("Q4_0", "Q4_1", "Q5_0", "Q5_1", "Q8_0", "IQ4_NL")
LARGE = ("Q2_K", "Q3_K", "Q4_K", "Q5_K", "Q6_K", "IQ4_XS")
every_type = pytest.mark.parametrize("name", SMALL + LARGE)
with_and_without = pytest.mark.parametrize("weighted", [False, True], ids=["plain", "imatrix"])


def fast(name: str, weighted: bool = False) -> Quantizer:
    quantize = quantizer(name, weighted)
    assert quantize is not None
    return quantize


def assert_same(name: str, rows: NDArray[np.float32], imatrix: NDArray[np.float32] | None) -> None:
    ours = fast(name, imatrix is not None)(rows, imatrix)
    theirs = ggml.quantize_chunk(GGMLQuantizationType[name], rows, imatrix)
    assert ours.shape == theirs.shape
    assert ours.dtype == np.uint8
    assert np.flatnonzero((ours != theirs).any(axis=1)).tolist() == [], "rows that differ"


@pytest.mark.slow
@every_type
@with_and_without
def test_bytes_are_the_librarys(name: str, weighted: bool) -> None:
    for rows in (usual_rows(seed=11), hostile_rows(seed=12), usual_rows(5, 14336, seed=13)):
        assert_same(name, rows, importances(rows.shape[1], seed=14) if weighted else None)


@pytest.mark.parametrize("name", SMALL)
@with_and_without
def test_rows_that_k_quants_cannot_take(name: str, weighted: bool) -> None:
    rows = usual_rows(41, 576)
    assert_same(name, rows, importances(576) if weighted else None)


@every_type
@with_and_without
@pytest.mark.parametrize("n_rows", [0, 1, 15, 16, 31, 33])
def test_any_number_of_blocks(name: str, weighted: bool, n_rows: int) -> None:
    n_cols = BLOCK[GGMLQuantizationType[name]][0]
    assert_same(name, usual_rows(33, n_cols)[:n_rows], importances(n_cols) if weighted else None)


_value = st.floats(width=32, allow_nan=False, allow_infinity=False)


@pytest.mark.slow
@settings(max_examples=60, deadline=None)
@given(data=super_blocks(_value, 1e-15, 1e-38, 3e38), weight=st.floats(0, 100, width=32))
def test_blocks_that_nobody_thought_of(data: list[list[float]], weight: float) -> None:
    rows = np.array(data, np.float32).reshape(1, 256)
    imatrix = np.tile(np.array([1, weight], np.float32), 128)
    for name in SMALL + LARGE:
        assert_same(name, rows, None)
        assert_same(name, rows, imatrix)


def test_slabs_in_threads_are_the_whole() -> None:
    rows = usual_rows(64, 1024)
    quantize = fast("Q4_K")
    with ThreadPoolExecutor(4) as pool:
        slabs = pool.map(lambda at: quantize(rows[at : at + 3], None), range(0, 64, 3))
        assert np.array_equal(np.concatenate(list(slabs)), quantize(rows, None))


def test_python_goes_on_meanwhile() -> None:
    quantize, rows = fast("Q4_K"), usual_rows(256, 4096)
    worker = threading.Thread(target=lambda: [quantize(rows, None) for _ in range(8)])
    interval = sys.getswitchinterval()
    sys.setswitchinterval(60)  # nobody gives the lock away unless it is released
    try:
        worker.start()
        turns = 0
        while worker.is_alive():
            worker.join(0.001)
            turns += 1
    finally:
        sys.setswitchinterval(interval)
    assert turns > 8


def test_views_and_read_only_arrays_are_taken() -> None:
    wide = usual_rows(20, 1024)
    frozen = wide[:, 256:768].copy()
    frozen.flags.writeable = False
    same = fast("Q4_K")(frozen, None)
    assert np.array_equal(fast("Q4_K")(wide[:, 256:768], None), same)
    assert np.array_equal(fast("Q4_K")(wide[::2, 256:768], None), same[::2])
    assert frozen.flags.writeable is False
    assert wide.flags.writeable is True


def test_what_does_not_fit_is_refused() -> None:
    with pytest.raises(ValueError, match="256"):
        fast("Q4_K")(np.zeros((2, 300), np.float32), None)
    with pytest.raises(ValueError, match="no importance matrix"):
        fast("Q4_K")(np.zeros((2, 256), np.float32), np.ones(256, np.float32))
    with pytest.raises(ValueError, match="256 columns"):
        fast("Q4_K", True)(np.zeros((2, 256), np.float32), None)
    with pytest.raises(ValueError, match="256 columns"):
        fast("Q4_K", True)(np.zeros((2, 256), np.float32), np.ones(512, np.float32))


def test_other_types_are_the_librarys() -> None:
    assert quantizer("IQ1_S", True) is None
    assert quantizer("F16") is None


@pytest.mark.parametrize("rows", [usual_rows(), hostile_rows()], ids=["usual", "hostile"])
def test_one_wrong_byte_is_found(rows: NDArray[np.float32]) -> None:
    quantize = fast("Q8_0")

    def wrong(given: NDArray[np.float32], imatrix: NDArray[np.float32] | None) -> NDArray[np.uint8]:
        out = quantize(given, imatrix)
        if given.shape == rows.shape:
            out[-1, -1] ^= 1
        return out

    assert agrees(GGMLQuantizationType.Q8_0, False, quantize)
    assert not agrees(GGMLQuantizationType.Q8_0, False, wrong)


def test_half_precision_is_numpys() -> None:
    from numba import njit

    from quantize.kernels.lanes import LANES, load, store
    from quantize.kernels.search import from_half, to_half

    @njit
    def convert(values, halves, back):  # type: ignore[no-untyped-def]
        for i in range(0, values.size, LANES):
            half = to_half(load(values, i))
            store(halves, i, half)
            store(back, i, from_half(half))

    exact = np.arange(1 << 16, dtype=np.uint16).view(np.float16).astype(np.float32)
    exact = exact[~np.isnan(exact)]
    with np.errstate(over="ignore", invalid="ignore"):
        middle = exact + np.spacing(exact.astype(np.float16)).astype(np.float32) / 2
        around = [np.nextafter(middle, np.float32(end), dtype=np.float32) for end in (-np.inf, np.inf)]
    values = np.concatenate([exact, middle, *around, np.float32([1e-45, -1e-30, 65519, 65520, 3e38])])
    values = np.resize(values[~np.isnan(values)], 1 << 18)
    halves, back = np.empty(values.size, np.int32), np.empty(values.size, np.float32)
    convert(values, halves, back)
    with np.errstate(over="ignore"):
        expected = values.astype(np.float16)
    assert np.array_equal(halves, expected.view(np.uint16))
    assert np.array_equal(back, expected.astype(np.float32))


ASK = "from quantize.kernels.dispatch import quantizer; print(quantizer('Q8_0') is not None)"


@pytest.fixture
def ask(tmp_path: Path) -> Callable[..., bool]:
    """Ask a fresh process, with a cache of its own, whether there is a fast quantizer for Q8_0."""

    def answer(before: str = "", **env: str) -> bool:
        run = subprocess.run(
            [sys.executable, "-c", before + ASK],
            env={**os.environ, "NUMBA_CACHE_DIR": str(tmp_path), **env},
            check=True,
            capture_output=True,
            text=True,
        )
        return run.stdout.strip() == "True"

    return answer


@pytest.mark.slow
def test_compiled_code_and_verdict_are_kept(ask: Callable[..., bool], tmp_path: Path) -> None:
    assert ask()
    (verdicts,) = tmp_path.glob("mixcli/kernels/*/verdicts.json")
    (code,) = tmp_path.glob("mixcli/kernels/*/**/*.nbc")
    assert json.loads(verdicts.read_text()) == {"Q8_0": True}
    made = code.stat().st_mtime_ns
    assert ask()
    assert code.stat().st_mtime_ns == made
    verdicts.write_text('{"Q8_0": false}')
    assert not ask(), "the kept verdict counts"
    verdicts.write_text("not json")
    assert ask()


@pytest.mark.slow
def test_old_caches_are_let_go(ask: Callable[..., bool], tmp_path: Path) -> None:
    for age in range(6):
        old = tmp_path / "mixcli" / "kernels" / f"old{age}"
        old.mkdir(parents=True)
        os.utime(old, (1e9 - age, 1e9 - age))
    assert ask()
    kept = {path.name for path in (tmp_path / "mixcli" / "kernels").iterdir()}
    assert len(kept) == 4
    assert {"old0", "old1", "old2"} < kept


def test_without_numba_the_library_serves(ask: Callable[..., bool]) -> None:
    assert not ask("import sys; sys.modules['numba'] = None; ")
    assert not ask(NUMBA_DISABLE_JIT="1")


@pytest.mark.slow
def test_a_cache_that_cannot_be_written_costs_only_time(ask: Callable[..., bool]) -> None:
    assert ask(NUMBA_CACHE_DIR="/dev/null/here")


def test_numba_comes_only_when_it_is_needed(python_imports: Callable[[str], set[str]]) -> None:
    assert not {"numba", "llvmlite", "llama_cpp"} & python_imports("quantize.kernels.dispatch")
    assert "numba" not in python_imports("quantize")
