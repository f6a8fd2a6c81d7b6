"""GGUF in, GGUF out: requantizing, copying, shards, and the split experts of December 2023."""

import subprocess
import sys
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from quantize import CorruptFile, Options, QuantizeError, Unsupported, convert, prepare
from quantize.errors import BadOption, NeedsOption
from quantize.recipe import FILE_TYPES, choose_types, stored_types
from quantize.source import ModelSource, TensorSource, u32
from quantize.sources.gguf_header import read_header
from quantize.sources.gguf_source import open_gguf
from tests.quantize.tiny import model_of, random_weights, write_gguf


@pytest.fixture(scope="module")
def model() -> ModelSource:
    return model_of(random_weights(n_ff=256))


@pytest.fixture(scope="module")
def files(model: ModelSource, tmp_path_factory: pytest.TempPathFactory) -> Mapping[str, Path]:
    folder = tmp_path_factory.mktemp("gguf")
    paths = {name: folder / f"{name}.gguf" for name in ("F32", "BF16", "F16", "Q8_0", "Q4_K_M")}
    for name, path in paths.items():
        write_gguf(model, path, choose_types(model, name), name)
    return paths


@pytest.mark.parametrize("source", ["F32", "BF16", "F16", "Q8_0"])
@pytest.mark.parametrize("output_type", ["Q4_K_M", "Q2_K", "BF16"])
def test_requantizing_gives_the_bytes_of_llama_quantize(
    files, tmp_path: Path, llama_quantize, source: str, output_type: str
) -> None:
    convert(files[source], tmp_path / "ours.gguf", Options(output_type=output_type))
    llama_quantize(files[source], tmp_path / "theirs.gguf", FILE_TYPES[output_type], allow_requantize=True)
    assert (tmp_path / "ours.gguf").read_bytes() == (tmp_path / "theirs.gguf").read_bytes()


def test_what_lost_much_already_is_quantized_again_only_when_asked(
    files, tmp_path: Path, llama_quantize
) -> None:
    ours, theirs = tmp_path / "ours.gguf", tmp_path / "theirs.gguf"
    with pytest.raises(NeedsOption, match=r"token_embd\.weight is Q4_K already .* --allow-requantize"):
        convert(files["Q4_K_M"], ours, Options(output_type="Q3_K_M"))
    assert list(tmp_path.iterdir()) == []
    convert(files["Q4_K_M"], ours, Options(output_type="Q3_K_M", allow_requantize=True))
    llama_quantize(files["Q4_K_M"], theirs, FILE_TYPES["Q3_K_M"], allow_requantize=True)
    assert ours.read_bytes() == theirs.read_bytes()


def test_the_same_type_again_is_a_copy(files, tmp_path: Path) -> None:
    for number, options in enumerate((Options(), Options(output_type="copy"), Options(output_type="Q4_K_M"))):
        plan = prepare(files["Q4_K_M"], tmp_path / f"{number}.gguf", options)
        assert all(tensor.is_copy for tensor in plan.tensors)
        convert(files["Q4_K_M"], plan.target, Options(output_type=options.output_type))
        assert plan.target.read_bytes() == files["Q4_K_M"].read_bytes()


def test_nan_in_stored_blocks_is_named(files, tmp_path: Path) -> None:
    header = read_header(files["Q8_0"])
    tensor = header.tensor("blk.1.ffn_up_exps.weight")
    assert tensor
    data = bytearray(files["Q8_0"].read_bytes())
    data[tensor.offset + 34 * 5000 : tensor.offset + 34 * 5000 + 2] = (
        b"\x00\x7e"  # the scale of one block: NaN
    )
    broken = tmp_path / "broken.gguf"
    broken.write_bytes(data)
    for output_type in (None, "Q4_K_M"):
        with pytest.raises(CorruptFile, match=r"broken.gguf: blk\.1\.ffn_up_exps\.weight") as caught:
            convert(broken, tmp_path / "out.gguf", Options(output_type=output_type))
        assert caught.value.exit_code == 5
    assert not (tmp_path / "out.gguf").exists()


def test_shards_hold_the_limit_and_join_again(files, tmp_path: Path) -> None:
    size = files["Q8_0"].stat().st_size
    report = convert(files["Q8_0"], tmp_path / "m.gguf", Options(split_max_size=size // 3))
    names = sorted(path.name for path in tmp_path.iterdir())
    assert names == [path.name for path in report.paths]
    assert names[0] == f"m-00001-of-{len(names):05d}.gguf" and len(names) >= 4
    assert all(path.stat().st_size <= size // 3 for path in report.paths)
    assert sum(path.stat().st_size for path in report.paths) == report.n_bytes
    for named in (0, 1, -1):  # any of them stands for all
        convert(report.paths[named], tmp_path / "joined.gguf")
        assert (tmp_path / "joined.gguf").read_bytes() == files["Q8_0"].read_bytes()


def test_llama_cpp_takes_the_shards(files, tmp_path: Path, llama_quantize) -> None:
    report = convert(
        files["BF16"], tmp_path / "m.gguf", Options(split_max_size=files["BF16"].stat().st_size // 2)
    )
    for source, name in ((report.paths[0], "split"), (files["BF16"], "whole")):
        llama_quantize(source, tmp_path / name, FILE_TYPES["Q4_K_M"])
    assert (tmp_path / "split").read_bytes() == (tmp_path / "whole").read_bytes()


def test_a_shard_too_small_for_a_tensor(files, tmp_path: Path) -> None:
    with pytest.raises(BadOption, match="alone needs"):
        convert(files["Q8_0"], tmp_path / "m.gguf", Options(split_max_size=100_000))


def of_december_2023(model: ModelSource) -> ModelSource:
    """Take a model's expert stacks apart, as converters wrote them before llama.cpp merged experts."""
    tensors: list[TensorSource] = []
    for tensor in model.tensors:
        if "_exps" not in tensor.name:
            tensors.append(tensor)
            continue
        n_expert, n_rows, n_cols = tensor.shape
        for expert in range(n_expert):
            first = expert * n_rows

            def read_raw(start, stop, read=tensor.read_raw, first=first):
                return read(first + start, first + stop)

            name = tensor.name.replace("_exps.", f".{expert}.")
            tensors.append(replace(tensor, name=name, shape=(n_rows, n_cols), read_raw=read_raw))
    return replace(model, tensors=tensors)


def test_split_experts_are_merged_without_loss(files, tmp_path: Path, llama_quantize) -> None:
    old = of_december_2023(open_gguf(files["Q4_K_M"]))
    write_gguf(old, tmp_path / "old.gguf", stored_types(old), "Q4_K_M")
    assert read_header(tmp_path / "old.gguf").tensor("blk.1.ffn_down.7.weight")
    convert(tmp_path / "old.gguf", tmp_path / "new.gguf")
    assert (tmp_path / "new.gguf").read_bytes() == files["Q4_K_M"].read_bytes()


def test_split_experts_can_be_quantized_on(files, tmp_path: Path) -> None:
    old = of_december_2023(open_gguf(files["F16"]))
    write_gguf(old, tmp_path / "old.gguf", stored_types(old), "F16")
    for source, name in ((tmp_path / "old.gguf", "a"), (files["F16"], "b")):
        convert(source, tmp_path / name, Options(output_type="Q4_K_M"))
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()


def test_experts_of_two_types(model: ModelSource, files, tmp_path: Path) -> None:
    a, b = (of_december_2023(open_gguf(files[name])) for name in ("Q8_0", "F16"))
    mixed = [x if "ffn_up.3." in x.name else y for x, y in zip(a.tensors, b.tensors, strict=True)]
    old = replace(a, tensors=mixed)
    write_gguf(old, tmp_path / "old.gguf", stored_types(old), "F16")
    with pytest.raises(NeedsOption, match=r"different types \(F16/Q8_0\)"):
        convert(tmp_path / "old.gguf", tmp_path / "new.gguf")
    convert(tmp_path / "old.gguf", tmp_path / "new.gguf", Options(output_type="Q4_K_M"))
    merged = open_gguf(tmp_path / "old.gguf")
    found = next(t for t in merged.tensors if t.name == "blk.0.ffn_up_exps.weight").read(0, 8 * 256)
    wanted = next(t for t in model.tensors if t.name == "blk.0.ffn_up_exps.weight").read(0, 8 * 256)
    assert np.allclose(found, wanted, atol=2e-3)


def test_missing_and_odd_experts(files, tmp_path: Path) -> None:
    old = of_december_2023(open_gguf(files["Q8_0"]))
    gone = replace(old, tensors=[t for t in old.tensors if t.name != "blk.1.ffn_gate.5.weight"])
    write_gguf(gone, tmp_path / "gone.gguf", stored_types(gone), "Q8_0")
    with pytest.raises(CorruptFile, match=r"blk\.1\.ffn_gate: expert 5 is missing"):
        convert(tmp_path / "gone.gguf", tmp_path / "new.gguf")
    odd = replace(
        old,
        tensors=[
            replace(t, shape=(128, 256)) if t.name == "blk.0.ffn_up.2.weight" else t for t in old.tensors
        ],
    )
    write_gguf(odd, tmp_path / "odd.gguf", stored_types(odd), "Q8_0")
    with pytest.raises(CorruptFile, match=r"blk\.0\.ffn_up\.2\.weight has shape \(128, 256\)"):
        convert(tmp_path / "odd.gguf", tmp_path / "new.gguf")


def test_the_result_may_not_be_the_source(files) -> None:
    with pytest.raises(QuantizeError, match="is the source itself"):
        convert(files["Q8_0"], files["Q8_0"], Options(output_type="Q4_K_M"))


@pytest.mark.parametrize(
    ("key", "value", "words"),
    [
        ("llama.block_count", 0, "it must be 1 to 512"),
        ("llama.block_count", 1 << 31, "it must be 1 to 512"),
        ("llama.expert_count", 100_000, "it must be 0 to 1,024"),
        ("llama.expert_used_count", 9, "9 of 8 experts"),
        ("llama.expert_used_count", 0, "0 of 8 experts"),
        ("llama.attention.head_count", 0, "it must be 1"),
    ],
)
def test_values_that_would_abort_the_library(files, tmp_path: Path, key: str, value: int, words: str) -> None:
    model = open_gguf(files["Q8_0"])
    bad = replace(model, metadata={**model.metadata, key: u32(value)})
    write_gguf(bad, tmp_path / "bad.gguf", stored_types(bad), "Q8_0")
    with pytest.raises(CorruptFile, match=words):
        convert(tmp_path / "bad.gguf", tmp_path / "out.gguf", Options(output_type="Q4_K_M"))


def test_other_architectures_and_pickles_are_refused_by_name(files, tmp_path: Path) -> None:
    model = open_gguf(files["Q8_0"])
    value = replace(model.metadata["general.architecture"], value="mamba")
    other = replace(model, metadata={**model.metadata, "general.architecture": value})
    write_gguf(other, tmp_path / "other.gguf", stored_types(other), "Q8_0")
    with pytest.raises(Unsupported, match="the architecture is 'mamba'"):
        convert(tmp_path / "other.gguf", tmp_path / "out.gguf", Options(output_type="Q4_K_M"))
    with pytest.raises(Unsupported, match="is a pickle file"):
        convert(tmp_path / "pytorch_model.bin", tmp_path / "out.gguf")


def test_the_public_names_come_lazily_and_stay_functions() -> None:
    code = (
        "import sys, quantize\n"
        "assert not {'numpy', 'llama_cpp', 'gguf'} & set(sys.modules)\n"
        "import quantize.conversion\n"
        "from quantize import convert, prepare, execute\n"
        "assert callable(convert) and callable(prepare) and callable(execute)\n"
        "assert all(getattr(quantize, name) for name in quantize.__all__)\n"
        "assert not any(name.split('.')[0] in ('mixcli', 'profiles') for name in sys.modules)\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
