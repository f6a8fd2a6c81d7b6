"""The table of errors: what the real quantizers do to some of the rows, resumable, and what the errors cost."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from quantize import ggml
from quantize.errors import CorruptFile
from quantize.ggml_types import GGMLQuantizationType as T
from quantize.imatrix import Imatrix
from quantize.source import TensorSource
from quantize.tailor.error_table import ErrorTable, TensorErrors, measure_errors, measured_rows, step_of
from quantize.tailor.objective import losses, plain_losses
from quantize.tailor.statistics import SENSITIVITY, Statistics
from tests.quantize.tiny import model_of, random_weights

TYPES = (T.Q2_K, T.Q4_K, T.Q8_0)
WEIGHTS = random_weights(n_layer=1, n_embd=256, n_ff=512, n_expert=2)
TENSORS = [one for one in model_of(WEIGHTS).tensors if "_exps" in one.name]
RANDOM = np.random.default_rng(5)
COUNTS = np.array([96.0, 32.0])  # tokens that reach the experts; 128 in all


def statistics() -> Statistics:
    sums, counts = {}, {}
    for one in TENSORS:
        n, n_rows, n_columns = one.shape
        sums[one.name] = RANDOM.random((n, n_columns)) * COUNTS[:, None]
        sums[SENSITIVITY + one.name] = RANDOM.random((n, 1 if "down" in one.name else n_rows))
        counts |= dict.fromkeys((one.name, SENSITIVITY + one.name), COUNTS)
    sums[SENSITIVITY + "blk.0.attn_output.weight"] = np.ones((1, 1))
    counts[SENSITIVITY + "blk.0.attn_output.weight"] = np.array([128.0])
    return Statistics("digest", sums, counts)


KNOWN = statistics()
IMATRIX = Imatrix(
    "m", "digest", {one.name: KNOWN.columns(one.name).astype(np.float32).ravel() for one in TENSORS}
)


def table(path: Path, tensors: Sequence[TensorSource] = TENSORS, identity: str = "one") -> ErrorTable:
    return measure_errors(tensors, TYPES, KNOWN, IMATRIX, path, identity, n_threads=2)


def test_errors_are_those_of_the_quantizers(tmp_path: Path) -> None:
    found = table(tmp_path / "t")
    for tensor in TENSORS:
        one = found.tensors[tensor.name]
        for expert, rows in enumerate(WEIGHTS[tensor.name]):
            columns = KNOWN.columns(tensor.name)[expert].astype(np.float32)
            for i, type_ in enumerate(TYPES):
                raw = ggml.quantize_chunk(type_, rows[::8], columns)
                error = ggml.dequantize(type_, raw, rows.shape[1]) - rows[::8]
                np.testing.assert_allclose(one.errors[i, expert], np.square(error) @ columns, rtol=1e-4)
            np.testing.assert_allclose(one.squares[expert], np.square(rows[::8]).sum(axis=0), rtol=1e-5)


def test_costs_follow_the_outputs_way_to_the_stream(tmp_path: Path) -> None:
    found = table(tmp_path / "t")
    cost = losses(found, KNOWN)
    down, up = (found.tensors[f"blk.0.ffn_{part}_exps.weight"] for part in ("down", "up"))
    expected = sum(8 * down.errors[:, e].sum(axis=1) * KNOWN.rows(down.name)[e, 0] for e in range(2))
    np.testing.assert_allclose(cost[down.name], expected, rtol=1e-5)
    of_each = [KNOWN.rows(up.name)[e] * 8 * down.squares[e] for e in range(2)]
    expected = sum(
        up.errors[:, e] @ costs[::8] * costs.sum() / costs[::8].sum() for e, costs in enumerate(of_each)
    )
    np.testing.assert_allclose(cost[up.name], expected, rtol=1e-5)
    for one in (*cost.values(), *plain_losses(found).values()):
        assert (np.diff(one) < 0).all(), "more bits, smaller errors"


def test_measured_rows_stand_for_the_others_by_what_an_error_costs() -> None:
    costs = np.ones((1, 64))
    costs[0, 5] = 1000.0  # between two rows that are measured
    errors = np.ones((1, 1, 8), np.float32)
    down = TensorErrors("blk.0.ffn_down.weight", 1, errors, costs.astype(np.float32))
    up = TensorErrors("blk.0.ffn_up.weight", 8, errors, np.ones((1, 1), np.float32))
    known = Statistics(
        "d",
        {SENSITIVITY + up.name: np.ones((1, 64)), SENSITIVITY + down.name: np.ones((1, 1))},
        {SENSITIVITY + up.name: np.array([1.0]), SENSITIVITY + down.name: np.array([1.0])},
    )
    found = losses(ErrorTable((T.Q4_K,), {one.name: one for one in (up, down)}), known)
    np.testing.assert_allclose(found[up.name], costs.sum(), rtol=1e-6)


@pytest.mark.parametrize(
    ("shape", "step"),
    [((14336, 4096), 8), ((8, 14336, 4096), 56), ((8, 4096, 14336), 16), ((128, 2048, 4096), 32), ((4, 1536, 768), 8)],
)  # fmt: skip
def test_of_a_large_stack_fewer_rows_of_each_expert_are_measured(shape: tuple[int, ...], step: int) -> None:
    read: list[int] = []

    def rows(start: int, stop: int) -> np.ndarray:
        read.extend(range(start, stop))
        return np.ones((stop - start, shape[-1]), np.float32)

    one = TensorSource("blk.0.ffn_up.weight", shape, "BF16", rows, "one")
    assert step_of(one) == step
    measured_rows(one, 0)
    assert read == list(range(0, shape[-2], step))


def test_an_expert_that_no_token_reached_has_the_mean_of_its_layer() -> None:
    name = TENSORS[0].name
    counts = {**KNOWN.counts, name: np.array([96.0, 0.0]), SENSITIVITY + name: np.array([96.0, 0.0])}
    sums = {key: values * (counts[key] > 0)[:, None] for key, values in KNOWN.sums.items()}
    found = Statistics("d", sums, counts)
    np.testing.assert_allclose(found.columns(name)[1], found.columns(name)[0])
    np.testing.assert_allclose(found.rows(name)[1], found.rows(name)[0])


def test_a_killed_table_resumes_after_its_last_whole_tensor(tmp_path: Path) -> None:
    path = tmp_path / "t"
    whole = table(path)
    raw = path.read_bytes()

    def unread(tensor: TensorSource) -> TensorSource:
        def read(start: int, stop: int) -> np.ndarray:
            raise AssertionError(f"{tensor.name} is read again, rows {start} to {stop}")

        return replace(tensor, read=read)

    assert raw == (table(path, [unread(one) for one in TENSORS]), path.read_bytes())[1]
    path.write_bytes(raw[:-100])
    with pytest.raises(AssertionError, match="is read again"):
        table(path, [unread(one) for one in TENSORS])
    again = table(path)
    for name, one in whole.tensors.items():
        assert again.tensors[name].errors.tobytes() == one.errors.tobytes()
    with pytest.raises(AssertionError, match="is read again"):
        table(path, [unread(one) for one in TENSORS], identity="another source")


def test_rows_that_are_no_whole_blocks_and_bad_weights(tmp_path: Path) -> None:
    odd = TensorSource("blk.0.ffn_down_exps.weight", (1, 8, 96), "F32", lambda a, b: np.ones((b - a, 96), np.float32), "odd")  # fmt: skip
    name = odd.name
    known = replace(KNOWN, sums={name: np.ones((1, 96))}, counts={name: np.array([4.0])})
    imatrix = replace(IMATRIX, entries={name: np.ones(96, np.float32)})
    found = measure_errors([odd], TYPES, known, imatrix, tmp_path / "t", "odd")
    assert np.isinf(found.tensors[name].errors[:2]).all()
    assert np.isfinite(found.tensors[name].errors[2]).all()
    bad = replace(odd, read=lambda a, b: np.full((b - a, 96), np.nan, np.float32))
    with pytest.raises(CorruptFile, match="NaN or infinite; the file is damaged"):
        measure_errors([bad], TYPES, known, imatrix, tmp_path / "u", "bad")
