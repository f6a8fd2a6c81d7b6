"""FP8 weights: exact values with scales of every kind and name, read in any slices of rows; what does not fit is refused."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from quantize.conversion import Options, convert
from quantize.errors import CorruptFile, QuantizeError, Unsupported
from quantize.source import TensorSource
from quantize.sources.checkpoint import open_checkpoint
from quantize.sources.fp8 import widen_fp8
from tests.support.broken_checkpoints import SMALL, refused
from tests.support.checkpoints import pack_safetensors, write_checkpoint, write_json, write_native
from tests.support.fp8 import E4M3, Style, dequantized, random_bytes

DENSE = {**SMALL, "architecture": "MistralForCausalLM"}
FP8 = {
    "quantization_config": {"quant_method": "fp8", "activation_scheme": "static", "weight_block_size": None}
}


def test_every_byte_has_its_value() -> None:
    found = np.empty(256, np.float32)
    widen_fp8(np.arange(256, dtype=np.uint8), found)
    np.testing.assert_array_equal(found, E4M3)
    assert np.signbit(found[0x80]) and np.isnan(found[[0x7F, 0xFF]]).all()


def opened(
    folder: Path, weight: NDArray[Any], scale: NDArray[Any], block: list[int] | None = None
) -> TensorSource:
    """One FP8 weight in a folder of its own."""
    folder.mkdir()
    write_json(
        folder / "config.json",
        {
            "architectures": ["MistralForCausalLM"],
            "quantization_config": {"quant_method": "fp8", "weight_block_size": block},
        },
    )
    pack_safetensors(folder / "model.safetensors", {"x.weight": weight, "x.weight_scale_inv": scale}, "F32")
    return open_checkpoint(folder).tensors["x.weight"]


@pytest.mark.parametrize(
    ("shape", "scales", "block"),
    [
        ((6, 10), (), None),
        ((6, 10), (1,), None),
        ((6, 10), (6,), None),
        ((6, 10), (6, 1), None),
        ((6, 10), (2, 3), [4, 4]),
        ((8, 12), (2, 3), [4, 4]),
        ((6, 12), (1, 3), [128, 4]),
        ((6, 10), (2, 1), [4, 128]),
        ((3, 6, 10), (3,), None),
        ((3, 6, 10), (3, 1, 1), None),
        ((3, 6, 10), (3, 6, 1), None),
        ((3, 6, 10), (1, 2, 3), [4, 4]),
        ((3, 8, 12), (3, 2, 3), [4, 4]),
    ],
)
def test_scales_of_every_shape_are_applied(
    shape: tuple[int, ...], scales: tuple[int, ...], block: list[int] | None, tmp_path: Path
) -> None:
    weight = random_bytes(shape, 3)
    scale = np.random.default_rng(5).uniform(0.001, 3, scales).astype(np.float32)
    expected = dequantized(weight, scale, tuple(block) if block else (1, 1)).reshape(-1, shape[-1])  # type: ignore[arg-type]
    tensor = opened(tmp_path / "m", weight, scale, block)
    assert (tensor.shape, tensor.dtype) == (shape, "F8_E4M3")
    np.testing.assert_array_equal(tensor.read(0, tensor.n_rows), expected)
    for start in range(tensor.n_rows):
        np.testing.assert_array_equal(tensor.read(start, start + 1), expected[start : start + 1])
    np.testing.assert_array_equal(tensor.read(3, tensor.n_rows - 1), expected[3:-1])


def test_scales_may_be_powers_of_two_in_a_byte(tmp_path: Path) -> None:
    weight = random_bytes((4, 8), 1)
    folder = tmp_path / "m"
    opened(folder, weight, np.ones((4, 1), np.float32))
    file = folder / "model.safetensors"
    exponents = np.array([[127], [120], [130], [0]], np.uint8)
    pack_safetensors(file, {"x.weight": weight, "x.weight_scale_inv": exponents})
    file.write_bytes(
        file.read_bytes().replace(b'scale_inv": {"dtype": "F8_E4M3"', b'scale_inv": {"dtype": "F8_E8M0"')
    )
    scale = np.ldexp(np.float32(1), exponents.astype(np.int32) - 127)
    np.testing.assert_array_equal(
        open_checkpoint(folder).tensors["x.weight"].read(0, 4), E4M3[weight] * scale
    )


@pytest.mark.filterwarnings("error")
def test_a_product_that_is_too_large_is_infinite_without_a_warning(tmp_path: Path) -> None:
    tensor = opened(tmp_path / "m", np.full((2, 4), 0x7E, np.uint8), np.full((2, 1), 3e38, np.float32))
    assert np.isinf(tensor.read(0, 2)).all()


STYLES = {
    "fp8": (Style(), FP8),
    "compressed-tensors": (
        Style("channel", "weight_scale", "input_scale"),
        {"quantization_config": {"quant_method": "compressed-tensors", "format": "float-quantized", "config_groups": {"group_0": {"weights": {"type": "float", "num_bits": 8, "strategy": "channel"}}}}},
    ),
    "modelopt": (Style("tensor", "weight_scale", "input_scale"), {"quantization_config": {"quant_method": "modelopt", "quant_algo": "FP8"}}),
}  # fmt: skip


@pytest.mark.parametrize("style", STYLES)
def test_the_scales_of_every_style_become_part_of_their_weights(style: str, tmp_path: Path) -> None:
    kept, config = STYLES[style]
    plain = open_checkpoint(write_checkpoint(tmp_path / "plain", **DENSE))
    found = open_checkpoint(write_checkpoint(tmp_path / "fp8", **DENSE, config=config, change=kept.apply))
    assert list(found.tensors) == list(plain.tensors)
    assert found.tensors["model.layers.0.mlp.up_proj.weight"].dtype == "F8_E4M3"


def test_mistrals_own_names_are_read(tmp_path: Path) -> None:
    style = Style("tensor", "qscale_weight", "qscale_act")
    small = {"n_layer": 1, "n_embd": 16, "n_ff": 32}
    quantization = {"qformat_weight": "fp8_e4m3", "qscheme_act": "TENSOR"}
    folder = write_native(tmp_path / "m", **small, params={"quantization": quantization}, change=style.apply)
    found = open_checkpoint(folder)
    assert found.tensors.keys() == open_checkpoint(write_native(tmp_path / "plain", **small)).tensors.keys()
    assert found.hparams.n_embd == 16


def test_a_conversion_names_what_is_not_a_number(tmp_path: Path) -> None:
    def with_nan(arrays: Any) -> Any:
        changed = Style().apply(arrays)
        changed["model.layers.1.mlp.down_proj.weight"][3, 5] = 0xFF
        return changed

    folder = write_checkpoint(
        tmp_path / "m", **{**DENSE, "tokenizer": "v1", "n_layer": 2}, config=FP8, change=with_nan
    )
    with pytest.raises(
        CorruptFile,
        match=r"has weights that are NaN or infinite, the first in row 3, column 5 of blk.1.ffn_down.weight",
    ):
        convert(folder, tmp_path / "m.gguf", Options(output_type="BF16"))


W, S = "model.layers.0.mlp.up_proj.weight", "model.layers.0.mlp.up_proj.weight_scale_inv"


def without(name: str) -> Any:
    return lambda arrays: {key: array for key, array in Style().apply(arrays).items() if key != name}


def instead(name: str, array: Any) -> Any:
    return lambda arrays: Style().apply(arrays) | {name: array}


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (without(S), "stores .*up_proj.weight' as FP8 and lacks its scale"),
        (without(W), "scales .*up_proj.weight', which is missing"),
        (instead(W, np.ones((32, 16), np.float32)), "as BF16, although .*scale_inv' scales it"),
        (
            instead(S, np.ones(5, np.float32)),
            r"has the shape \[5\], which does not fit the weight's \[32, 16\]",
        ),
        (instead(S, np.ones((32, 16, 1), np.float32)), r"has the shape \[32, 16, 1\], which does not fit"),
        (
            instead(S, np.ones((32, 16), np.float32)),
            r"has the weight's own shape, \[32, 16\]: a scale belongs to",
        ),
        (instead(S, np.full((), np.inf, np.float32)), "has a scale that is NaN or infinite"),
        (instead(S, np.full((), -1, np.float32)), "has the scale -1, which is negative"),
        (instead(S, np.full((32, 1), -2, np.float32)), "has the scale -2, which"),
        (instead(S, random_bytes((), 1)), "has the type F8_E4M3, but scales are"),
        (instead(f"{W.removesuffix('weight')}qscale_weight", np.ones((), np.float32)), "has two scales"),
    ],
)
def test_weights_and_scales_that_do_not_fit_are_refused(change: Any, words: str, tmp_path: Path) -> None:
    with pytest.raises(CorruptFile, match=words):
        folder = write_checkpoint(tmp_path / "m", **DENSE, config=FP8, change=change)
        open_checkpoint(folder).tensors[W].read(0, 1)


def named(**groups: Any) -> dict[str, Any]:
    return {"quant_method": "compressed-tensors", "format": "float-quantized", "config_groups": groups}


E4, BLOCKS = {"type": "float", "num_bits": 8}, {"type": "float", "num_bits": 8, "block_structure": [64, 64]}


@pytest.mark.parametrize(
    ("method", "words"),
    [
        ("fp8", r"already quantized \(fp8\)"),
        ({"quant_method": "awq", "bits": 4}, r"\(awq\)"),
        ({"quant_method": "gptq"}, r"\(gptq\)"),
        ({"quant_method": "bitsandbytes", "load_in_4bit": True}, r"\(bitsandbytes\)"),
        ({"quant_method": "modelopt", "quant_algo": "NVFP4"}, r"\(modelopt NVFP4\)"),
        ({"quant_method": "compressed-tensors", "format": "nvfp4-pack-quantized"}, r"\(compressed-tensors nvfp4-pack-quantized\)"),
        ({"group_size": 64, "bits": 4}, r"\(4 bits\)"),
        ({"quant_method": 7}, r"\(unknown method\)"),
        ({"quant_method": "fp8", "weight_block_size": [128]}, r"\(blocks of \[128\]\)"),
        (named(), r"\(compressed-tensors float-quantized\)"),
        (named(a={"weights": {"type": "int", "num_bits": 8}}), r"\(compressed-tensors float-quantized\)"),
        (named(a={"weights": E4}, b={"weights": BLOCKS}), "with several block sizes"),
    ],
)  # fmt: skip
def test_every_other_quantization_is_refused_by_name(method: Any, words: str, tmp_path: Path) -> None:
    folder = write_checkpoint(tmp_path / "m", **SMALL, config={"quantization_config": method})
    refused(
        folder,
        Unsupported,
        rf"{words}.*; mixcli converts BF16, F16, F32 and FP8 \(e4m3\): convert the original checkpoint",
    )


def test_a_block_of_no_rows_is_refused(tmp_path: Path) -> None:
    method = {"quant_method": "fp8", "weight_block_size": [0, 128]}
    refused(
        write_checkpoint(tmp_path / "m", **SMALL, config={"quantization_config": method}),
        CorruptFile,
        "rows in a block = 0; it must be",
    )


def test_another_format_of_mistrals_own_is_refused(tmp_path: Path) -> None:
    folder = write_native(
        tmp_path / "m", n_layer=1, n_embd=16, n_ff=32, params={"quantization": {"qformat_weight": "nvfp4"}}
    )
    with pytest.raises(QuantizeError, match=r"already quantized \(nvfp4\)"):
        open_checkpoint(folder)
