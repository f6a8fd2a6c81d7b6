"""What an error costs, against the same measured: a matrix is changed a little, and the residual stream behind its half layer is compared."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from mixcli.host.protocol.host_spec import LoadPlan
from mixcli.insight.compute.chunks import cut
from mixcli.insight.compute.importance import sum_up, tap_of
from mixcli.insight.compute.tokens import stream
from mixcli.insight.imatrix_file import write_imatrix
from mixcli.insight.importance import ImportanceSums
from mixcli.insight.orders import ImatrixOrder, TextReading
from mixcli.insight.pieces import HELD_OUT, TextPiece, shipped
from mixcli.llama.batch import Batch
from mixcli.llama.context import Context
from mixcli.llama.model import Model
from mixcli.llama.observers import NamedTensors
from profiles.placement import Placement
from quantize.imatrix import read_imatrix
from quantize.recipe import choose_types
from quantize.sources.gguf_source import open_gguf
from quantize.tailor.statistics import read_statistics
from tests.quantize.tiny import tensor_of, write_gguf
from tests.support.tiny_models import tiny_model

PLACEMENT = Placement(
    n_ctx=1024, n_batch=512, n_ubatch=512, n_seq_max=2, n_threads=1, n_threads_batch=1, repack=False
)
TEXT = TextPiece("t", "prose", next(one for one in shipped(HELD_OUT) if one.name == "french").text * 2)
N_CTX, LAYER = 512, 1


class Stream:
    """The residual stream behind both half layers."""

    def __init__(self) -> None:
        self.values: dict[str, NDArray[np.float64]] = {}

    def accepts(self, name: str) -> bool:
        return name in (f"ffn_inp-{LAYER}", f"l_out-{LAYER}")

    def observe(self, name: str, values: NDArray[np.generic]) -> None:
        self.values[name] = values.astype(np.float64)


def streams(path: Path) -> dict[str, NDArray[np.float64]]:
    seen = Stream()
    with (
        Model.load(path, PLACEMENT) as model,
        Context(model, PLACEMENT, tap=NamedTensors(seen)) as context,
    ):
        (ids,) = cut(stream(model, [TEXT], lambda _: None), N_CTX, model.vocab)[:1]
        batch = Batch(N_CTX)
        batch.extend(ids, 0, 0, n_logits=N_CTX)
        context.decode(batch)
    return seen.values


def statistics_of(path: Path, folder: Path) -> Path:
    """Return the file of a pass over the text."""
    reading = TextReading(path, LoadPlan(PLACEMENT), (TEXT,), N_CTX, 1)
    order = ImatrixOrder(reading, folder / "part", "run", with_sensitivity=True)
    sums = ImportanceSums()
    with (
        Model.load(path, PLACEMENT) as model,
        Context(model, PLACEMENT, kv_unified=False, tap=tap_of(order, sums)) as context,
    ):
        sum_up(order, model, context, sums, lambda *_: None, lambda _: None)
    write_imatrix(folder / "statistics.gguf", sums.entries, N_CTX, "t")
    return folder / "statistics.gguf"


@pytest.mark.parametrize("n_expert", [0, 4])
def test_costs_are_what_errors_do_to_the_stream(n_expert: int, tmp_path: Path) -> None:
    path = tiny_model(tmp_path / "m.gguf", n_expert=n_expert, file_type="F32")
    known = read_statistics(statistics_of(path, tmp_path))
    assert known.n_tokens == N_CTX
    before = streams(path)
    suffix = "_exps" if n_expert else ""
    model = open_gguf(path)
    weights = {one.name: one.read(0, one.n_rows).reshape(one.shape) for one in model.tensors}
    random = np.random.default_rng(1)
    for part in ("attn_output", f"ffn_down{suffix}", f"ffn_up{suffix}", f"ffn_gate{suffix}"):
        name = f"blk.{LAYER}.{part}.weight"
        change = random.standard_normal(weights[name].shape, np.float32) * np.float32(0.002)
        change *= random.lognormal(0, 1, (*change.shape[:-1], 1)).astype(np.float32)  # rows differ
        errors = np.square(change).reshape(-1, *change.shape[-2:]) @ known.columns(name)[..., None]
        costs = known.rows(name)
        if "gate" in name or "up" in name:
            down = weights[f"blk.{LAYER}.ffn_down{suffix}.weight"]
            costs = costs * np.square(down.reshape(-1, *down.shape[-2:])).sum(axis=1)
        predicted = (errors[..., 0] * costs).sum()
        changed = replace(
            model, tensors=[tensor_of(one, v + change if one == name else v) for one, v in weights.items()]
        )
        write_gguf(changed, tmp_path / "changed.gguf", choose_types(changed, "F32"), "F32")
        after = streams(tmp_path / "changed.gguf")
        key = f"ffn_inp-{LAYER}" if part == "attn_output" else f"l_out-{LAYER}"
        moved = np.square(after[key] - before[key]).sum(axis=1) / np.square(before[key]).sum(axis=1)
        # inputs, gradients and stream are taken as independent of each other, which is a little off
        assert moved.mean() == pytest.approx(predicted, rel=0.3), name


def test_the_file_is_an_importance_matrix_too(tmp_path: Path) -> None:
    path = tiny_model(tmp_path / "m.gguf")
    file = statistics_of(path, tmp_path)
    known, imatrix = read_statistics(file), read_imatrix(file)
    for tensor in open_gguf(path).tensors:
        if known.has(tensor.name):
            weights = imatrix.weights(tensor)
            assert weights is not None
            np.testing.assert_allclose(known.columns(tensor.name), weights, rtol=1e-6)
    assert sum(known.has(tensor.name) for tensor in open_gguf(path).tensors) == 8
