"""Importance matrices in both formats, whole and broken."""

import os
import struct
from pathlib import Path

import gguf
import numpy as np
import pytest

from quantize import CorruptFile, Options, QuantizeError, convert, prepare
from quantize.imatrix import read_imatrix
from quantize.recipe import FILE_TYPES, choose_types
from quantize.sources.gguf_header import read_header
from tests.quantize.tiny import model_of, random_weights, write_gguf

Entries = dict[str, tuple[np.ndarray, np.ndarray]]


def write_as_gguf(
    path: Path, entries: Entries, *, datasets: tuple[str, ...] = ("wiki.train",), only: str = ""
) -> Path:
    """Write sums and counts as llama-imatrix does."""
    writer = gguf.GGUFWriter(path, "")
    writer.add_string("general.type", "imatrix")
    writer.add_array("imatrix.datasets", list(datasets))
    writer.add_uint32("imatrix.chunk_count", 7)
    writer.add_uint32("imatrix.chunk_size", 512)
    for name, (sums, counts) in entries.items():
        writer.add_tensor(name + ".in_sum2", sums.astype(np.float32))
        if name != only:
            writer.add_tensor(name + ".counts", counts.astype(np.float32))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


def packed_dat(entries: dict[str, tuple[int, np.ndarray]], tail: bytes = b"") -> bytes:
    data = struct.pack("<i", len(entries))
    for name, (n_calls, values) in entries.items():
        data += struct.pack("<i", len(name)) + name.encode() + struct.pack("<ii", n_calls, len(values))
        data += values.astype("<f4").tobytes()
    return data + tail


def test_gguf_sums_become_means_expert_by_expert(tmp_path: Path) -> None:
    sums = np.array([[2, 4, 6], [9, 9, 9], [5, 0, 10]])
    counts = np.array([[2], [0], [5]])
    found = read_imatrix(write_as_gguf(tmp_path / "m.gguf", {"blk.0.ffn_up_exps.weight": (sums, counts)}))
    wanted = [1, 2, 3, 1, 1, 1, 1, 0, 2]  # an expert without a token weighs all columns alike
    assert found.entries["blk.0.ffn_up_exps.weight"].tolist() == wanted
    assert (found.n_chunks, found.dataset, found.name) == (7, "wiki.train", "m.gguf")
    keys = {key: value.value for key, value in found.metadata().items()}
    assert keys == {
        "quantize.imatrix.file": "m.gguf",
        "quantize.imatrix.dataset": "wiki.train",
        "quantize.imatrix.entries_count": 1,
        "quantize.imatrix.chunks_count": 7,
    }


def test_dat_sums_are_divided_by_calls(tmp_path: Path) -> None:
    entries = {"a": (4, np.array([4.0, 8.0])), "b": (0, np.array([3.0]))}
    for tail, n_chunks, dataset in ((b"", 0, ""), (struct.pack("<ii", 9, 4) + b"wiki", 9, "wiki")):
        (tmp_path / "m.dat").write_bytes(packed_dat(entries, tail))
        found = read_imatrix(tmp_path / "m.dat")
        assert {name: values.tolist() for name, values in found.entries.items()} == {"a": [1, 2], "b": [3]}
        assert (found.n_chunks, found.dataset) == (n_chunks, dataset)


GOOD = packed_dat({"a": (4, np.array([4.0, 8.0]))})
BROKEN = {
    "empty": (b"", "ends 4 bytes early"),
    "cut": (GOOD[:-1], "ends 1 byte early"),
    "no entries": (struct.pack("<i", 0), "number of entries is 0"),
    "negative entries": (struct.pack("<i", -5), "number of entries is -5"),
    "many entries": (struct.pack("<i", 1 << 30), "number of entries is 1,073,741,824"),
    "long name": (struct.pack("<ii", 1, 1 << 20), "length of a name"),
    "negative name": (struct.pack("<ii", 1, -1), "length of a name is -1"),
    "no values": (packed_dat({"a": (1, np.array([]))}), "the values for 'a' is 0"),
    "nan": (packed_dat({"a": (1, np.array([1.0, np.nan]))}), "not all finite"),
    "inf": (packed_dat({"a": (1, np.array([1.0, np.inf]))}), "not all finite"),
    "html": (b"<!DOCTYPE html>", "number of entries"),
}


@pytest.mark.parametrize("case", BROKEN)
def test_broken_dat_files_are_named(tmp_path: Path, case: str) -> None:
    data, words = BROKEN[case]
    (tmp_path / "m.dat").write_bytes(data)
    with pytest.raises(CorruptFile, match=words) as caught:
        read_imatrix(tmp_path / "m.dat")
    assert caught.value.exit_code == 5


def test_broken_gguf_matrices_are_named(tmp_path: Path) -> None:
    entry = (np.ones((2, 3)), np.ones((2, 1)))
    odd = write_as_gguf(tmp_path / "odd.gguf", {"a": entry, "b": entry}, only="b")
    with pytest.raises(CorruptFile, match="'b' has only one of sums and counts"):
        read_imatrix(odd)
    uneven = write_as_gguf(tmp_path / "uneven.gguf", {"a": (np.ones((2, 3)), np.ones((4, 1)))})
    with pytest.raises(CorruptFile, match="6 sums for 4 counts"):
        read_imatrix(uneven)
    model = model_of(random_weights(n_ff=256))
    write_gguf(model, tmp_path / "model.gguf", choose_types(model, "Q8_0"), "Q8_0")
    with pytest.raises(CorruptFile, match="it has no sums"):
        read_imatrix(tmp_path / "model.gguf")
    with pytest.raises(QuantizeError, match="cannot be read"):
        read_imatrix(tmp_path / "none.dat")


def entries_for(weights: dict[str, np.ndarray], *, n_cols: int = 0) -> Entries:
    rng = np.random.default_rng(11)
    entries: Entries = {}
    for name, values in weights.items():
        if values.ndim > 1 and "gate_inp" not in name and not name.startswith("token_embd"):
            n_expert = values.shape[0] if values.ndim == 3 else 1
            shape = (n_expert, n_cols or values.shape[-1])
            entries[name] = (rng.random(shape) ** 3 * 100, rng.integers(0, 9, (n_expert, 1)))
    return entries


@pytest.mark.slow
def test_a_file_steers_the_quantizers_as_in_llama_quantize(tmp_path: Path, llama_quantize) -> None:
    weights = random_weights(n_ff=256)
    model = model_of(weights)
    write_gguf(model, tmp_path / "bf16.gguf", choose_types(model, "BF16"), "BF16")
    path = write_as_gguf(tmp_path / "imatrix.gguf", entries_for(weights))
    for output_type in ("Q4_K_M", "IQ2_XXS", "Q2_K_S"):
        ours, theirs = tmp_path / f"{output_type}.gguf", tmp_path / "theirs.gguf"
        convert(tmp_path / "bf16.gguf", ours, Options(output_type=output_type, imatrix=path))
        llama_quantize(
            tmp_path / "bf16.gguf", theirs, FILE_TYPES[output_type], imatrix=read_imatrix(path).entries
        )
        found, wanted = read_header(ours), read_header(theirs)
        assert ours.read_bytes()[found.data_offset :] == theirs.read_bytes()[wanted.data_offset :]
        assert found.get("quantize.imatrix.file") == "imatrix.gguf"
    plain = tmp_path / "plain.gguf"
    convert(tmp_path / "bf16.gguf", plain, Options(output_type="Q4_K_M"))
    assert plain.read_bytes()[-1000:] != (tmp_path / "Q4_K_M.gguf").read_bytes()[-1000:]


def test_a_matrix_of_another_model_is_refused(tmp_path: Path) -> None:
    weights = random_weights(n_ff=256)
    model = model_of(weights)
    write_gguf(model, tmp_path / "bf16.gguf", choose_types(model, "BF16"), "BF16")
    path = write_as_gguf(tmp_path / "imatrix.gguf", entries_for(weights, n_cols=128))
    with pytest.raises(CorruptFile, match="made for another model"):
        convert(tmp_path / "bf16.gguf", tmp_path / "m.gguf", Options(output_type="Q4_K_M", imatrix=path))
    few = {name: entry for name, entry in entries_for(weights).items() if "ffn_down" not in name}
    path = write_as_gguf(tmp_path / "imatrix.gguf", few)
    with pytest.raises(
        QuantizeError,
        match=r"ffn_down_exps\.weight as IQ2_XXS needs an importance matrix, which has no entry",
    ):
        convert(tmp_path / "bf16.gguf", tmp_path / "m.gguf", Options(output_type="IQ2_XXS", imatrix=path))
    convert(tmp_path / "bf16.gguf", tmp_path / "m.gguf", Options(output_type="Q4_K_M", imatrix=path))


HOSTILE = {
    "negative": (np.array([1.0, -1e-9]), np.array([1.0]), "go down to -1e-09"),
    "huge": (np.array([1.0, 1e30]), np.array([1.0]), r"go up to 1e\+30"),
    "nan": (np.array([1.0, np.nan]), np.array([1.0]), "not all finite"),
    "inf": (np.array([1.0, np.inf]), np.array([1.0]), "not all finite"),
    "counts that are no numbers": (np.array([1.0, 2.0]), np.array([np.nan]), "counts for .* finite and at least 0"),
    "counts without end": (np.array([1.0, 2.0]), np.array([np.inf]), "counts for .* finite and at least 0"),
    "negative counts": (np.array([1.0, 2.0]), np.array([-4.0]), "counts for .* finite and at least 0"),
}  # fmt: skip


@pytest.mark.parametrize("case", HOSTILE)
def test_what_no_text_can_have_given_is_refused(tmp_path: Path, case: str) -> None:
    """With such values ggml's quantizers end the process: "found point not on grid"."""
    sums, counts, words = HOSTILE[case]
    with pytest.raises(CorruptFile, match=words):
        read_imatrix(write_as_gguf(tmp_path / "m.gguf", {"a": (sums[None], counts[None])}))
    if "counts" not in case:
        (tmp_path / "m.dat").write_bytes(packed_dat({"a": (1, sums)}))
        with pytest.raises(CorruptFile, match=words):
            read_imatrix(tmp_path / "m.dat")


def test_odd_facts_about_a_matrix_cost_only_themselves(tmp_path: Path) -> None:
    for key, add, value in (
        ("imatrix.datasets", "add_uint32", 7),
        ("imatrix.datasets", "add_string", "text"),
        ("imatrix.chunk_count", "add_int32", -1),
        ("imatrix.chunk_count", "add_uint64", 1 << 60),
        ("imatrix.chunk_count", "add_string", "many"),
    ):
        writer = gguf.GGUFWriter(tmp_path / "m.gguf", "")
        getattr(writer, add)(key, value)
        writer.add_tensor("a.in_sum2", np.ones((1, 3), np.float32))
        writer.add_tensor("a.counts", np.ones((1, 1), np.float32))
        writer.write_header_to_file()
        writer.write_kv_data_to_file()
        writer.write_tensors_to_file()
        writer.close()
        found = read_imatrix(tmp_path / "m.gguf")
        assert (found.n_chunks, found.dataset) == (0, "")
        assert found.metadata()["quantize.imatrix.entries_count"].value == 1


def test_a_matrix_without_any_tensor_of_the_model(tmp_path: Path) -> None:
    model = model_of(random_weights(n_layer=1, n_ff=256, n_expert=0))
    write_gguf(model, tmp_path / "bf16.gguf", choose_types(model, "BF16"), "BF16")
    path = write_as_gguf(tmp_path / "m.gguf", {"other.weight": (np.ones((1, 256)), np.ones((1, 1)))})
    with pytest.raises(
        CorruptFile, match=r"no values for any tensor of this model \(but for 'other.weight'\)"
    ):
        convert(tmp_path / "bf16.gguf", tmp_path / "out.gguf", Options(output_type="Q4_K_M", imatrix=path))


def test_an_entry_twice_a_pointer_and_a_pipe(tmp_path: Path) -> None:
    entry = struct.pack("<i", 1) + b"a" + struct.pack("<iif", 1, 1, 1.0)
    (tmp_path / "m.dat").write_bytes(struct.pack("<i", 2) + 2 * entry)
    with pytest.raises(CorruptFile, match="has 'a' twice"):
        read_imatrix(tmp_path / "m.dat")
    (tmp_path / "m.dat").write_bytes(b"version https://git-lfs.github.com/spec/v1\noid sha256:00\n")
    with pytest.raises(CorruptFile, match="Git LFS pointer"):
        read_imatrix(tmp_path / "m.dat")
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(QuantizeError, match="is a pipe"):
        read_imatrix(tmp_path / "pipe")


@pytest.mark.slow
@pytest.mark.parametrize("largest", [1e10, 1e15, 1e18, 3e38])
@pytest.mark.parametrize("file_type", ["IQ2_XXS", "IQ2_XS", "IQ1_S", "IQ3_S", "Q2_K", "Q4_K_M", "Q4_0"])
def test_weights_beyond_any_block_are_a_sentence(tmp_path: Path, largest: float, file_type: str) -> None:
    """ggml would abort or search without an end for the nearest point of its grid: in our own process."""
    weights = random_weights(n_layer=1, n_ff=256, n_expert=0)
    weights["blk.0.ffn_up.weight"] *= np.float32(largest)
    model = model_of(weights)
    ones = {
        name: (np.ones((1, 256)), np.ones((1, 1))) for name, values in weights.items() if values.ndim == 2
    }
    matrix = read_imatrix(write_as_gguf(tmp_path / "m.gguf", ones))
    types = choose_types(model, file_type, imatrix=True)
    with pytest.raises(QuantizeError, match=r"ffn_up\.weight has values up to .* too large for I?Q"):
        write_gguf(model, tmp_path / "out.gguf", types, file_type, imatrix=matrix)


@pytest.mark.parametrize("name", ["I8", "i32", "F64", "Q8_1", "Q8_K", "NO"])
def test_a_type_that_ggml_never_writes_is_refused(name: str) -> None:
    model = model_of(random_weights(n_layer=1, n_ff=256, n_expert=0))
    with pytest.raises(QuantizeError, match="use F32, F16"):
        choose_types(model, "Q8_0", tensor_types=(("ffn_up", name),))


@pytest.mark.parametrize("pattern", ["(" * 100_000, "a\0b", "(", "[", "*"])
def test_a_pattern_that_is_none_is_a_sentence(pattern: str) -> None:
    model = model_of(random_weights(n_layer=1, n_ff=256, n_expert=0))
    with pytest.raises(QuantizeError):
        choose_types(model, "Q8_0", tensor_types=((pattern, "Q4_0"),))


def prepared(tmp_path: Path, entries: Entries) -> tuple[str, ...]:
    """Return the notes on a Q4_K_M of a two-layer mixture whose importance matrix has these entries."""
    model = model_of(random_weights(n_ff=256))
    write_gguf(model, tmp_path / "bf16.gguf", choose_types(model, "BF16"), "BF16")
    path = write_as_gguf(tmp_path / "m.gguf", entries)
    options = Options(output_type="Q4_K_M", imatrix=path)
    return prepare(tmp_path / "bf16.gguf", tmp_path / "out.gguf", options).notes


def test_how_many_tensors_a_matrix_covers_is_told(tmp_path: Path) -> None:
    entries = entries_for(random_weights(n_ff=256))
    n = len([name for name in entries if name != "output.weight"])
    assert f"m.gguf has values for {n + 1} of {n + 1} quantized tensors" in prepared(tmp_path, entries)
    del entries["output.weight"]  # llama-imatrix leaves it out, so it is not missing
    assert f"m.gguf has values for {n} of {n} quantized tensors" in prepared(tmp_path, entries)


def test_a_matrix_of_fewer_layers_or_with_other_names_is_told_with_counts(tmp_path: Path) -> None:
    entries = entries_for(random_weights(n_ff=256))
    layer = {name: entry for name, entry in entries.items() if name.startswith("blk.0.")}
    moved = {name.replace("blk.0.", "blk.9."): entry for name, entry in layer.items()}
    known, surplus = prepared(tmp_path, layer | moved)
    n = len(layer)
    assert known.startswith(
        f"m.gguf has values for {n} of {2 * n} quantized tensors; the other {n}, such as blk.1."
    )
    assert surplus.startswith(f"{n} entries of m.gguf, such as 'blk.9.")
    assert "no tensor of this model" in surplus


@pytest.mark.parametrize(
    ("shape", "words"),
    [((2, 512), "2 matrices of 512 values .* needs 4 of 256"), ((8, 256), "8 matrices of 256 values"), ((4, 128), "needs 4 of 256")],
)  # fmt: skip
def test_a_matrix_of_other_experts_or_widths_is_refused(
    tmp_path: Path, shape: tuple[int, int], words: str
) -> None:
    """Also where the values are as many, 2 x 512 for 4 x 256: they belong to other columns."""
    entries = entries_for(random_weights(n_ff=256, n_expert=4))
    entries["blk.1.ffn_up_exps.weight"] = (np.ones(shape), np.ones((shape[0], 1)))
    model = model_of(random_weights(n_ff=256, n_expert=4))
    write_gguf(model, tmp_path / "bf16.gguf", choose_types(model, "BF16"), "BF16")
    path = write_as_gguf(tmp_path / "m.gguf", entries)
    with pytest.raises(CorruptFile, match=f"{words}.*made for another model"):
        prepare(tmp_path / "bf16.gguf", tmp_path / "out.gguf", Options(output_type="Q8_0", imatrix=path))
