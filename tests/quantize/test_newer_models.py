"""The newer Mistral models, converted: llama.cpp answers as the checkpoint does, and the bytes are those of its own tools."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from quantize.conversion import Options, convert
from quantize.recipe import FILE_TYPES
from tests.support.fp8 import Style
from tests.support.newer_checkpoints import (
    YARN,
    write_large3,
    write_mistral3,
    write_mistral4,
    write_native_ministral3,
)
from tests.support.reference_model import ReferenceModel

FP8 = {"quantization_config": {"quant_method": "fp8", "weight_block_size": None}}
BLOCKS = {"type": "float", "num_bits": 8, "block_structure": [16, 16]}
COMPRESSED = {
    "quant_method": "compressed-tensors",
    "format": "float-quantized",
    "config_groups": {"group_0": {"weights": BLOCKS}},
}


def write_mistral_yarn(folder: Path, **changes: float) -> Path:
    """Write a dense Mistral of the older class, whose positions are stretched."""
    kept = ("rope_type", "rope_theta", "factor", "original_max_position_embeddings", "beta_fast", "beta_slow")
    rope = {name: YARN[name] for name in kept} | changes
    return write_mistral3(
        folder, kind="mistral", images=False, architectures=["MistralForCausalLM"], rope_parameters=rope
    )


MODELS: dict[str, Callable[[Path], Path]] = {
    "Mistral Small 3": lambda folder: write_mistral3(folder, kind="mistral"),
    "Mistral with YaRN": write_mistral_yarn,
    "Mistral with YaRN of a given magnitude": lambda folder: write_mistral_yarn(folder, attention_factor=1.0),
    "Mistral with YaRN of two scales": lambda folder: write_mistral_yarn(
        folder, mscale=1.0, mscale_all_dim=0.5
    ),
    "Ministral 3 of a given magnitude": lambda folder: write_mistral3(
        folder, images=False, rope_parameters=YARN | {"attention_factor": 1.1}
    ),
    "Ministral 3": write_mistral3,
    "Ministral 3, native": write_native_ministral3,
    "Ministral 3, FP8": lambda folder: write_mistral3(folder, change=Style().apply, **FP8),
    "Mistral Small 4": write_mistral4,
    "Mistral Small 4, single experts": lambda folder: write_mistral4(folder, n_dense=1, stacked=False),
    "Mistral Small 4, FP8": lambda folder: write_mistral4(folder, change=Style("matrix").apply, **FP8),
    "Mistral Large 3": write_large3,
    "Mistral Large 3, FP8": lambda folder: write_large3(
        folder, change=Style((16, 16), "weight_scale", None).apply, quantization=COMPRESSED
    ),
}


def answer(path: Path, tokens: list[int]) -> NDArray[np.float32]:
    """llama.cpp's logits at every position, everything in float32."""
    from llama_cpp import GGML_TYPE_F32, Llama

    llama = Llama(
        str(path), n_ctx=64, n_threads=1, logits_all=True, type_k=GGML_TYPE_F32, type_v=GGML_TYPE_F32, verbose=False
    )  # fmt: skip
    llama.eval(tokens)
    found = llama.scores[: len(tokens)].copy()
    llama.close()
    return found


@pytest.mark.parametrize("name", MODELS)
def test_llama_cpp_answers_as_the_checkpoint_does(name: str, tmp_path: Path) -> None:
    """Over three times the context that YaRN stretches, so that its ramp and attention's temperature count."""
    folder = MODELS[name](tmp_path / "m")
    path = tmp_path / "m.gguf"
    convert(folder, path, Options(output_type="F32"))
    reference = ReferenceModel.open(folder)
    tokens = reference.continued([1, *range(3000, 3000 + 37 * 50, 50)], 10)
    expected, found = reference.logits(tokens), answer(path, tokens)
    assert list(found[37:-1].argmax(-1)) == tokens[38:]
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-4 * expected.std())


@pytest.mark.parametrize(
    ("name", "output_type"),
    [
        ("Ministral 3, FP8", "Q8_0"),
        ("Mistral Small 4", "Q4_K_M"),
        ("Mistral Small 4, FP8", "Q5_K_M"),
        ("Mistral Large 3, FP8", "Q4_0"),
    ],
)
def test_one_pass_is_two_steps(
    name: str, output_type: str, tmp_path: Path, llama_quantize: Callable[..., None]
) -> None:
    """FP8 weights times their scales need more bits than bfloat16 has, so the first of the two steps writes float32."""
    folder = MODELS[name](tmp_path / "m")
    convert(folder, tmp_path / "ours.gguf", Options(output_type=output_type))
    convert(folder, tmp_path / "f32.gguf", Options(output_type="F32"))
    llama_quantize(tmp_path / "f32.gguf", tmp_path / "theirs.gguf", FILE_TYPES[output_type])
    assert (tmp_path / "ours.gguf").read_bytes() == (tmp_path / "theirs.gguf").read_bytes()
