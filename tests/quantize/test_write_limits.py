"""Writes that meet a small disk, little memory, or weights that are not numbers: refused before harm is done."""

import errno
import fcntl
import resource
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from quantize import CorruptFile, NoSpace, Progress, QuantizeError, Unsupported
from quantize.ggml_types import GGMLQuantizationType as T
from quantize.plan import plan_write
from quantize.recipe import choose_types
from quantize.source import ModelSource, TensorSource
from tests.quantize.tiny import model_of, random_weights, write_gguf


def test_too_little_disk_is_known_before_the_first_byte(tmp_path: Path) -> None:
    def never(start: int, stop: int) -> np.ndarray:
        raise AssertionError("nothing may be read")

    weights = random_weights()
    model = model_of(weights)
    huge = replace(
        model, tensors=[*model.tensors, TensorSource("x.weight", (1 << 23, 1 << 23), "F32", never, "x")]
    )
    types = {tensor.name: T.F32 for tensor in huge.tensors}
    with pytest.raises(NoSpace, match=r"needs 262144\.\d+ GiB, but the disk has .* free") as caught:
        write_gguf(huge, tmp_path / "m.gguf", types, "F32")
    assert caught.value.exit_code == 4
    assert list(tmp_path.iterdir()) == []


@pytest.fixture
def model() -> ModelSource:
    return model_of(random_weights(n_ff=256))


@pytest.mark.parametrize("code", [errno.ENOLCK, errno.EOPNOTSUPP, errno.ENOSYS])
def test_a_file_system_without_locks(
    model: ModelSource, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, code: int
) -> None:
    def refuse(_file: int, _how: int) -> None:
        raise OSError(code, "no locks")

    target, types = tmp_path / "m.gguf", choose_types(model, "Q8_0")
    monkeypatch.setattr(fcntl, "flock", refuse)
    write_gguf(model, target, types, "Q8_0")
    assert [path.name for path in tmp_path.iterdir()] == ["m.gguf"]


@pytest.mark.parametrize(("value", "row"), [(np.nan, 17), (np.inf, 300), (-np.inf, 2047)])
def test_nan_and_inf_are_refused_by_tensor_name(tmp_path: Path, value: float, row: int) -> None:
    weights = random_weights(n_ff=256)
    weights["blk.1.ffn_up_exps.weight"].reshape(-1, 256)[row, 5] = value
    model = model_of(weights)
    for output_type in ("Q4_K_M", "BF16"):
        with pytest.raises(CorruptFile) as caught:
            write_gguf(model, tmp_path / "m.gguf", choose_types(model, output_type), output_type)
        message = str(caught.value)
        assert message.startswith("tiny: blk.1.ffn_up_exps.weight has weights that are NaN or infinite")
        assert f"row {row:,}, column 5" in message
        assert caught.value.exit_code == 5
    assert list(tmp_path.iterdir()) == []


def test_values_beyond_the_type(tmp_path: Path) -> None:
    weights = random_weights(n_ff=256)
    weights["blk.0.attn_q.weight"][3, 3] = 1e5
    model = model_of(weights)
    with pytest.raises(Unsupported, match=r"attn_q\.weight has the value 100000, too large for F16"):
        write_gguf(model, tmp_path / "m.gguf", choose_types(model, "F16"), "F16")
    weights["blk.0.attn_q.weight"][3, 3] = 1e30
    with pytest.raises(Unsupported, match=r"values up to 1e\+30, too large for Q8_0"):
        write_gguf(model, tmp_path / "m.gguf", choose_types(model, "Q8_0"), "Q8_0")


def test_progress_counts_every_byte_once(model: ModelSource, tmp_path: Path) -> None:
    seen: list[Progress] = []
    report = write_gguf(model, tmp_path / "m.gguf", choose_types(model, "Q8_0"), "Q8_0", progress=seen.append)
    done = [at.done for at in seen]
    assert done == sorted(done)
    assert done[-1] == seen[-1].total <= report.n_bytes
    assert seen[-1].stage == "flushing"


def test_memory_stays_in_its_budget(tmp_path: Path) -> None:
    """A tensor of 512 MiB as float32 passes through 48 MiB."""
    n_rows, n_cols = 1 << 15, 1 << 12

    def read(start: int, stop: int) -> np.ndarray:
        return np.full((stop - start, n_cols), 0.5, np.float32)

    model = model_of(random_weights(n_ff=256))
    model = replace(
        model, tensors=[*model.tensors, TensorSource("x.weight", (n_rows, n_cols), "F32", read, "x")]
    )
    types = {tensor.name: T.F32 if len(tensor.shape) == 1 else T.Q8_0 for tensor in model.tensors}
    plan = plan_write(model, tmp_path / "m.gguf", types, "Q8_0", n_threads=16, max_memory=48 << 20)
    assert 1 < plan.n_workers < 16
    assert plan.bytes_memory <= 48 << 20
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    write_gguf(model, plan.target, types, "Q8_0", n_threads=16, max_memory=48 << 20)
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 100 << 10


def test_a_folder_that_is_not_there(model: ModelSource, tmp_path: Path) -> None:
    with pytest.raises(QuantizeError, match="does not exist"):
        write_gguf(model, tmp_path / "no" / "m.gguf", choose_types(model, "Q8_0"), "Q8_0")
