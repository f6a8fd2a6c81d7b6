"""The one-pass writer against llama_model_quantize: the same files, byte for byte."""

from collections.abc import Callable
from functools import cache
from pathlib import Path

import numpy as np
import pytest

from quantize import encoder
from quantize.imatrix import Imatrix
from quantize.recipe import FILE_TYPES, choose_types
from quantize.source import ModelSource
from quantize.sources.gguf_header import read_header
from tests.quantize.tiny import model_of, random_weights, write_gguf

SHAPES: dict[str, dict[str, int]] = {
    "mixtral": {"n_ff": 256},
    "mixtral, one layer": {"n_ff": 256, "n_layer": 1},
    "mixtral, widths of no K-block": {"n_embd": 288, "n_ff": 320},
    "mixtral, widths of no block": {"n_embd": 264, "n_ff": 300},
    "mixtral, one odd width, four layers": {"n_ff": 160, "n_layer": 4},
    "mistral": {"n_expert": 0, "n_ff": 768},
}
USUAL = [
    "BF16",
    "F16",
    "Q8_0",
    "Q2_K",
    "Q3_K_S",
    "Q3_K_M",
    "Q4_K_S",
    "Q4_K_M",
    "Q5_K_M",
    "Q6_K",
    "IQ4_XS",
    "IQ3_S",
]
NEED_IMATRIX = {"IQ3_XS", "IQ3_XXS", "IQ2_M", "IQ2_S", "IQ2_XS", "IQ2_XXS", "IQ1_M", "IQ1_S", "Q2_K_S"}
SEARCHED = ("IQ1", "IQ2", "IQ3")  # a second of a core for a million weights
WITH_IMATRIX = " with imatrix"
CASES = [
    *(
        pytest.param(shape, name, marks=[pytest.mark.slow] * (shape != "mixtral" or name.startswith("IQ")))
        for shape in SHAPES
        if shape != "mixtral, one layer"
        for name in (*USUAL, "Q4_K_M" + WITH_IMATRIX)
    ),
    *(
        pytest.param("mixtral, one layer", name, marks=pytest.mark.slow)
        if name.startswith(SEARCHED)
        else ("mixtral", name)
        for name in FILE_TYPES
        if name not in USUAL
    ),
]


@pytest.fixture(scope="session")
def sources(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], tuple[ModelSource, Path]]:
    """Give a model of some shape, and its BF16 GGUF."""

    @cache
    def source(shape: str) -> tuple[ModelSource, Path]:
        model = model_of(random_weights(**SHAPES[shape]))
        path = tmp_path_factory.mktemp("bf16") / "bf16.gguf"
        write_gguf(model, path, choose_types(model, "BF16"), "BF16")
        return model, path

    return source


def importance(model: ModelSource) -> Imatrix:
    rng = np.random.default_rng(3)
    entries = {}
    for tensor in model.tensors:
        if len(tensor.shape) > 1 and "ffn_gate_inp" not in tensor.name and tensor.name != "token_embd.weight":
            n_expert = tensor.shape[0] if len(tensor.shape) == 3 else 1
            entries[tensor.name] = rng.random(n_expert * tensor.shape[-1], dtype=np.float32) ** 4
    return Imatrix("m.dat", "digest", entries)


@pytest.mark.parametrize(("shape", "file_type"), CASES)
def test_writes_the_bytes_of_llama_quantize(
    sources, tmp_path: Path, llama_quantize, shape: str, file_type: str
) -> None:
    model, bf16 = sources(shape)
    with_imatrix = file_type in NEED_IMATRIX or file_type.endswith(WITH_IMATRIX)
    file_type = file_type.removesuffix(WITH_IMATRIX)
    imatrix = importance(model) if with_imatrix else None
    ours, theirs = tmp_path / "ours.gguf", tmp_path / "theirs.gguf"
    types = choose_types(model, file_type, imatrix=imatrix is not None)
    write_gguf(model, ours, types, file_type, imatrix=imatrix, n_threads=2)
    llama_quantize(bf16, theirs, FILE_TYPES[file_type], imatrix=imatrix.entries if imatrix else None)
    if imatrix is None:
        assert ours.read_bytes() == theirs.read_bytes()
    else:  # llama-quantize, the program, notes the imatrix in the metadata; the function does not
        found, wanted = read_header(ours), read_header(theirs)
        assert [(t.name, t.type, t.shape) for t in found.tensors] == [
            (t.name, t.type, t.shape) for t in wanted.tensors
        ]
        assert ours.read_bytes()[found.data_offset :] == theirs.read_bytes()[wanted.data_offset :]
        extra = {key: value.value for key, value in found.metadata.items() if key not in wanted.metadata}
        assert extra == {
            "quantize.imatrix.file": "m.dat",
            "quantize.imatrix.entries_count": len(imatrix.entries),
        }


@pytest.mark.slow
@pytest.mark.parametrize(
    "file_type",
    [
        *("Q2_K", "Q3_K_M", "Q4_K_M", "Q5_K_M", "Q6_K", "Q8_0", "IQ3_S", "IQ3_M"),
        *(f"{name} with imatrix" for name in ("Q4_K_M", "IQ3_XXS", "IQ2_M", "IQ2_XS", "IQ2_XXS")),
    ],
)
def test_compiled_quantizers_write_the_same(
    sources, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, file_type: str
) -> None:
    pytest.importorskip("numba")
    model, _ = sources("mixtral")
    imatrix = importance(model) if file_type.endswith(WITH_IMATRIX) else None
    file_type = file_type.removesuffix(WITH_IMATRIX)
    types = choose_types(model, file_type, imatrix=imatrix is not None)
    for name, worth in (("library", 1 << 60), ("compiled", 0)):
        monkeypatch.setattr(encoder, "KERNEL_WORTH", worth)
        write_gguf(model, tmp_path / name, types, file_type, imatrix=imatrix)
    assert (tmp_path / "compiled").read_bytes() == (tmp_path / "library").read_bytes()
    usual = types["blk.0.ffn_up_exps.weight"]
    assert encoder.quantizer(usual, imatrix is not None, 1).__module__ == "quantize.kernels.dispatch"
