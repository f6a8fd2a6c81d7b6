"""A synthetic Mixtral computes like a real one: sound header, logits of a language model, experts chosen by the token."""

from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from mixcli.llama.batch import Batch
from mixcli.llama.context import Context
from mixcli.llama.model import Model
from mixcli.llama.observers import NamedTensors
from mixcli.prompts.chat_format import ChatFormat
from mixcli.store.preflight import check_gguf
from profiles.placement import Placement
from quantize.ggml_types import GGMLQuantizationType
from tests.support.synthetic import resized, shape_named, write_model

N_TOKENS = 32
TINY = resized(shape_named("mixtral-8x7b", 3), 512, 512)
PLACEMENT = Placement(n_ctx=256, n_batch=64, n_ubatch=64, n_threads=1, n_threads_batch=1)


class Routing:
    """The experts that every layer chose: (n_tokens, 2) by layer."""

    def __init__(self) -> None:
        self.chosen: dict[str, NDArray[np.generic]] = {}

    def accepts(self, name: str) -> bool:
        return name.startswith("ffn_moe_topk-")

    def observe(self, name: str, values: NDArray[np.generic]) -> None:
        self.chosen[name] = values.copy()


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_model(tmp_path_factory.mktemp("synthetic") / "tiny.gguf", TINY)


def test_types_are_those_of_a_real_mixtral(path: Path) -> None:
    types = {tensor.name: tensor.type for tensor in check_gguf(path).tensors}
    assert types["blk.0.ffn_gate_exps.weight"] == GGMLQuantizationType.Q4_K
    assert types["blk.0.attn_k.weight"] == GGMLQuantizationType.Q8_0  # the rule for eight experts
    assert types["output.weight"] == GGMLQuantizationType.Q6_K


def test_it_computes_like_a_language_model(path: Path) -> None:
    routing, batch = Routing(), Batch(64)
    tokens = [int(token) for token in np.random.default_rng(3).integers(3, 32000, N_TOKENS)]
    with (
        Model.load(path, PLACEMENT) as model,
        Context(model, PLACEMENT, tap=NamedTensors(routing)) as context,
    ):
        assert ChatFormat.of(model)
        for i, token in enumerate(tokens):
            batch.extend([token], i, 0, n_logits=1)
        assert context.decode(batch)
        logits = np.stack([context.logits(i) for i in range(N_TOKENS)])
    assert np.isfinite(logits).all()
    assert 2 < logits.std(axis=1).min() <= logits.std(axis=1).max() < 8
    assert len(set(logits.argmax(axis=1))) > N_TOKENS / 2
    for layer in range(3):
        used = np.bincount(routing.chosen[f"ffn_moe_topk-{layer}"].reshape(-1), minlength=8)
        assert len(used) == 8
        assert used.max() < N_TOKENS * 0.75  # each token has two of eight


def test_the_same_arguments_give_the_same_bytes(path: Path, tmp_path: Path) -> None:
    again = write_model(tmp_path / "again.gguf", TINY)
    assert again.read_bytes() == path.read_bytes()


def test_sizes_that_no_mixtral_has_are_refused() -> None:
    with pytest.raises(SystemExit, match="embd must be a multiple of 512"):
        resized(TINY, 1000, 512)
