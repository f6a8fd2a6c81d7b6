"""From checkpoints on disk to GGUF: one pass gives the bytes of the two-step route, for every usual type."""

from collections.abc import Callable
from functools import cache
from pathlib import Path

import numpy as np
import pytest

from quantize import Options, QuantizeError, Unsupported, convert, ggml, prepare
from quantize.conversion import open_model, prepare_model
from quantize.errors import CorruptFile, NeedsOption, UnusedOption
from quantize.ggml_types import GGMLQuantizationType
from quantize.recipe import FILE_TYPES
from quantize.sources.gguf_header import read_header
from quantize.writer import execute
from tests.support.checkpoints import write_checkpoint

USUAL = ["F16", "Q8_0", "Q2_K", "Q3_K_S", "Q3_K_M", "Q4_K_S", "Q4_K_M", "Q5_K_M", "Q6_K", "IQ4_XS", "IQ3_S"]
SOURCES = {
    "Mixtral, tokenizer v1": {"tokenizer": "v1", "n_expert": 8, "n_ff": 320, "n_shards": 3},
    "Mistral, tokenizer v3": {"tokenizer": "v3", "architecture": "MistralForCausalLM"},
}


@pytest.fixture(scope="session")
def checkpoints(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], tuple[Path, Path]]:
    """Give a checkpoint's folder, and the BF16 GGUF made of it."""

    @cache
    def made(name: str) -> tuple[Path, Path]:
        folder = tmp_path_factory.mktemp("checkpoint")
        write_checkpoint(folder / "hf", **SOURCES[name])
        convert(folder / "hf", folder / "bf16.gguf", Options(output_type="BF16"))
        return folder / "hf", folder / "bf16.gguf"

    return made


@pytest.mark.parametrize(
    ("source", "output_type"),
    [
        pytest.param(source, name, marks=[pytest.mark.slow] * (name not in ("F16", "Q8_0")))
        for source in SOURCES
        for name in USUAL
    ],
)
def test_one_pass_is_two_steps(
    checkpoints, tmp_path: Path, llama_quantize, source: str, output_type: str
) -> None:
    folder, bf16 = checkpoints(source)
    convert(folder, tmp_path / "ours.gguf", Options(output_type=output_type))
    llama_quantize(bf16, tmp_path / "theirs.gguf", FILE_TYPES[output_type])
    assert (tmp_path / "ours.gguf").read_bytes() == (tmp_path / "theirs.gguf").read_bytes()


@pytest.mark.slow
@pytest.mark.parametrize(("dtype", "low_bit"), [("F16", np.uint16), ("F32", np.uint32)])
def test_wider_checkpoints_are_quantized_from_what_they_hold(
    tmp_path: Path, llama_quantize, dtype: str, low_bit: type[np.unsignedinteger]
) -> None:
    folder = write_checkpoint(
        tmp_path / "hf", architecture="MistralForCausalLM", dtype=dtype, n_ff=256, n_layer=1
    )
    file = folder / "model.safetensors"
    data = bytearray(file.read_bytes())
    start = 8 + int.from_bytes(data[:8], "little")
    weights = np.frombuffer(data, low_bit, offset=start)
    weights |= low_bit(1)  # no bfloat16 any more
    file.write_bytes(data)
    convert(folder, tmp_path / "ours.gguf", Options(output_type="Q8_0"))
    convert(folder, tmp_path / "f32.gguf", Options(output_type="F32"))
    llama_quantize(tmp_path / "f32.gguf", tmp_path / "theirs.gguf", FILE_TYPES["Q8_0"])
    assert (tmp_path / "ours.gguf").read_bytes() == (tmp_path / "theirs.gguf").read_bytes()


@pytest.mark.slow
def test_names_of_types_are_checked(checkpoints, tmp_path: Path) -> None:
    folder, _ = checkpoints("Mixtral, tokenizer v1")
    target = tmp_path / "m.gguf"
    for options, words in (
        ({"output_type": "Q4_K_XXL"}, "Q4_K_XXL is not a quant; use F32"),
        ({"tensor_types": (("x", "Q9"),)}, "Q9 is not a tensor type"),
        ({"token_embedding_type": "int4"}, "int4 is not a tensor type"),
    ):
        with pytest.raises(Unsupported, match=words):
            convert(folder, target, Options(**options))
    with pytest.raises(QuantizeError, match=r"llama\.cpp cannot choose types"):
        convert(folder, target, Options(tensor_types=(("blk.(0", "Q8_0"),)))
    with pytest.raises(
        NeedsOption, match=r"blk\.0\.attn_k\.weight as IQ2_XXS needs an importance matrix, which is not given"
    ):
        convert(folder, target, Options(tensor_types=(("attn_k", "IQ2_XXS"),)))
    with pytest.raises(NeedsOption, match=r"token_embd\.weight as IQ1_S needs an importance matrix"):
        convert(folder, target, Options(token_embedding_type="IQ1_S"))
    assert list(tmp_path.iterdir()) == []


def test_what_would_change_nothing_is_refused(checkpoints, tmp_path: Path) -> None:
    folder, bf16 = checkpoints("Mixtral, tokenizer v1")
    target = tmp_path / "m.gguf"
    for source, options, words in (
        (bf16, {"pure": True}, "--pure has no effect if every tensor keeps its type"),
        (bf16, {"output_type": "COPY", "tensor_types": (("ffn", "Q8_0"),)}, "--tensor has no effect"),
        (
            folder,
            {"tensor_types": (("no_such", "Q8_0"),)},
            "--tensor no_such=Q8_0 has no effect: no matrix matches",
        ),
        (folder, {"tensor_types": (("ffn_gate_inp", "Q8_0"),)}, "matching tensors keep another type"),
        (
            folder,
            {
                "tensor_types": (
                    ("ffn", "Q8_0"),
                    ("ffn_down", "Q6_K"),
                )
            },
            "an earlier --tensor matches the same tensors",
        ),
    ):
        with pytest.raises(UnusedOption, match=words):
            prepare(source, target, Options(**options))
    assert UnusedOption.exit_code == 2


@pytest.mark.slow
def test_a_dry_run_knows_the_result_to_the_byte(checkpoints, tmp_path: Path) -> None:
    folder, _ = checkpoints("Mixtral, tokenizer v1")
    plan = prepare(
        folder, tmp_path / "m.gguf", Options(output_type="Q4_K_M", n_threads=2, max_memory=1 << 28)
    )
    assert list(tmp_path.iterdir()) == []
    report = convert(folder, tmp_path / "m.gguf", Options(output_type="Q4_K_M"))
    header = read_header(tmp_path / "m.gguf")
    placed = [(t.source.name, t.type, t.source.shape, t.offset, t.n_bytes) for t in plan.tensors]
    assert placed == [(t.name, t.type, t.shape, t.offset, t.n_bytes) for t in header.tensors]
    assert plan.bytes_disk == report.n_bytes == (tmp_path / "m.gguf").stat().st_size
    assert 0 < plan.bytes_memory <= 1 << 28


def test_upcycled_experts_are_the_dense_layer(checkpoints, tmp_path: Path) -> None:
    folder, dense = checkpoints("Mistral, tokenizer v3")
    convert(folder, tmp_path / "moe.gguf", Options(output_type="BF16", upcycle_experts=4, seed=3))
    header = read_header(tmp_path / "moe.gguf")
    experts, layer = (
        header.tensor("blk.1.ffn_down_exps.weight"),
        read_header(dense).tensor("blk.1.ffn_down.weight"),
    )
    assert experts and layer and experts.shape == (4, *layer.shape)
    one = dense.read_bytes()[layer.offset :][: layer.n_bytes]
    assert (tmp_path / "moe.gguf").read_bytes()[experts.offset :][: experts.n_bytes] == one * 4
    assert header.get("llama.expert_count") == 4


def test_the_library_does_not_print_about_a_block_that_is_not_valid(
    capfd: pytest.CaptureFixture[str],
) -> None:
    assert not ggml.is_valid(GGMLQuantizationType.F16, np.full((1, 32), np.nan, np.float16).view(np.uint8))
    assert ggml.is_valid(GGMLQuantizationType.F16, np.ones((1, 32), np.float16).view(np.uint8))
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize("name", ["model.gguf", "model-00001-of-00002.safetensors", "config.json"])
def test_a_source_that_changed_since_it_was_opened_gives_no_result(tmp_path: Path, name: str) -> None:
    """Tailoring measures for hours between the two."""
    folder = write_checkpoint(tmp_path / "hf", tokenizer="v3", n_shards=2, architecture="MistralForCausalLM")
    convert(folder, folder / "model.gguf", Options(output_type="BF16"))
    model = open_model(folder / name if name == "model.gguf" else folder, Options())
    replaced = tmp_path / "replaced"
    replaced.write_bytes((folder / name).read_bytes())
    replaced.replace(folder / name)
    with pytest.raises(CorruptFile, match=f"{name} changed during the read"):
        execute(prepare_model(model, tmp_path / "made.gguf", Options(output_type="Q8_0")))
    assert [path.name for path in tmp_path.iterdir()] == ["hf"]
