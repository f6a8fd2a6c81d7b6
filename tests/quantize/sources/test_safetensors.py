"""The safetensors container: what is sound is read, every lie in a header is a sentence."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from quantize.errors import CorruptFile, NoSpace, Unsupported
from quantize.safetensors_writer import to_bfloat16, write_safetensors
from quantize.source import TensorSource
from quantize.sources.rows import Float32s, tensor_source
from quantize.sources.safetensors import MAX_HEADER_BYTES, read_header
from tests.support.checkpoints import bf16_values, pack_raw_safetensors, pack_safetensors


def _tensor(dtype: Any = "F32", shape: Any = (2,), offsets: Any = (0, 8)) -> dict[str, Any]:
    return {"dtype": dtype, "shape": shape, "data_offsets": offsets}


def test_a_sound_file_gives_its_tensors_by_name(tmp_path: Path) -> None:
    path = pack_safetensors(
        tmp_path / "m.safetensors", {"b": bf16_values((3, 4), 1), "a": bf16_values((2,), 2)}
    )
    found = read_header(path)
    assert list(found) == ["a", "b"]
    assert (found["b"].dtype, found["b"].shape, found["b"].n_bytes) == ("BF16", (3, 4), 24)
    assert found["a"].offset == found["b"].offset + 24


def test_an_empty_tensor_may_lie_anywhere(tmp_path: Path) -> None:
    header = {"a": _tensor(), "e": _tensor(shape=[0, 5], offsets=[8, 8])}
    found = read_header(
        pack_raw_safetensors(tmp_path / "m.safetensors", json.dumps(header).encode(), bytes(8))
    )
    assert found["e"].n_bytes == 0


BAD_HEADERS = {
    "a negative shape": ({"a": _tensor(shape=[-2, -1])}, "impossible shape"),
    "a shape of floats": ({"a": _tensor(shape=[2.0])}, "impossible shape"),
    "a shape of booleans": ({"a": _tensor(shape=[True, True])}, "impossible shape"),
    "a shape that is a number": ({"a": _tensor(shape=2)}, "impossible shape"),
    "a shape that overflows": ({"a": _tensor(shape=[1 << 40, 1 << 40])}, "impossible shape"),
    "too many dimensions": ({"a": _tensor(shape=[1] * 9 + [2])}, "impossible shape"),
    "a size that does not fit": ({"a": _tensor(offsets=[0, 7])}, "7 bytes for tensor 'a', but F32"),
    "offsets that run backwards": ({"a": _tensor(offsets=[8, 0])}, "-8 bytes for tensor"),
    "a negative offset": ({"a": _tensor(offsets=[-8, 0])}, "impossible byte range"),
    "three offsets": ({"a": _tensor(offsets=[0, 8, 8])}, "impossible byte range"),
    "no offsets": ({"a": {"dtype": "F32", "shape": [2]}}, "impossible byte range"),
    "a size beyond the file": ({"a": _tensor(shape=[4], offsets=[0, 16])}, "ends 8 bytes before"),
    "a huge offset": ({"a": _tensor(offsets=[1 << 70, (1 << 70) + 8])}, "impossible byte range"),
    "overlapping tensors": ({"a": _tensor(), "b": _tensor(shape=[1], offsets=[4, 8])}, "overlap"),
    "the same bytes twice": ({"a": _tensor(), "b": _tensor()}, "overlap"),
    "an unknown type": ({"a": _tensor(dtype="Q4_K")}, "unknown type 'Q4_K'"),
    "a type that is a list": ({"a": _tensor(dtype=["F32"])}, "unknown type"),
    "a tensor that is a list": ({"a": [1, 2]}, "which is not an object"),
    "half a byte": ({"a": _tensor(dtype="F4", shape=[3], offsets=[0, 1])}, "1 byte for tensor 'a', but F4"),
}


@pytest.mark.parametrize("case", BAD_HEADERS)
def test_a_header_that_lies_is_refused_in_words(case: str, tmp_path: Path) -> None:
    header, words = BAD_HEADERS[case]
    path = pack_raw_safetensors(tmp_path / "m.safetensors", json.dumps(header).encode(), bytes(8))
    with pytest.raises(CorruptFile, match=words) as raised:
        read_header(path)
    _is_a_sentence(raised.value)


BAD_FILES = {
    "empty": (b"", "only 0 bytes"),
    "seven bytes": (b"1234567", "only 7 bytes"),
    "a cut header": ((1000).to_bytes(8, "little") + b"{", "ends inside its header"),
    "a huge header": ((MAX_HEADER_BYTES + 1).to_bytes(8, "little") + b"{}", "the limit is"),
    "an endless header": (b"\xff" * 8, "the limit is"),
    "no JSON": (b"\x02" + bytes(7) + b"{]", "not JSON"),
    "no UTF-8": (b"\x02" + bytes(7) + b"\xff\xfe", "not UTF-8 text"),
    "a list": (b"\x02" + bytes(7) + b"[]", "not a JSON object"),
    "an HTML page": (b"<!DOCTYPE html><html></html>", "the limit is"),
}


@pytest.mark.parametrize("case", BAD_FILES)
def test_a_file_that_is_none_is_refused_in_words(case: str, tmp_path: Path) -> None:
    raw, words = BAD_FILES[case]
    path = tmp_path / "m.safetensors"
    path.write_bytes(raw)
    with pytest.raises(CorruptFile, match=words) as raised:
        read_header(path)
    _is_a_sentence(raised.value)


def test_a_name_that_comes_twice_is_refused(tmp_path: Path) -> None:
    one = json.dumps(_tensor())
    path = pack_raw_safetensors(tmp_path / "m.safetensors", f'{{"a": {one}, "a": {one}}}'.encode(), bytes(8))
    with pytest.raises(CorruptFile, match="'a' twice"):
        read_header(path)


def test_deep_nesting_is_refused(tmp_path: Path) -> None:
    path = pack_raw_safetensors(tmp_path / "m.safetensors", b'{"a":' + b"[" * 200_000)
    with pytest.raises(CorruptFile, match="nested too deeply"):
        read_header(path)


_JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text(max_size=5)
    | st.sampled_from(["F32", "BF16"]),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.sampled_from(["dtype", "shape", "data_offsets", "a"]), inner, max_size=4)
    ),
    max_leaves=12,
)


@settings(deadline=None, max_examples=300)
@given(st.dictionaries(st.text(max_size=3), _JSON, max_size=3))
def test_no_header_makes_the_reader_stumble(
    tmp_path_factory: pytest.TempPathFactory, header: dict[str, Any]
) -> None:
    path = tmp_path_factory.getbasetemp() / "fuzzed.safetensors"
    pack_raw_safetensors(path, json.dumps(header).encode(), bytes(16))
    try:
        assert all(tensor.n_bytes <= 16 for tensor in read_header(path).values())
    except CorruptFile as error:
        _is_a_sentence(error)


@pytest.mark.parametrize("dtype", ["BF16", "F16", "F32"])
def test_any_slab_of_rows_comes_back_exactly(dtype: str, tmp_path: Path) -> None:
    values = bf16_values((37, 700), 3)  # more elements than one step of the conversion takes
    big = bf16_values((3, 100_000), 4)
    found = read_header(pack_safetensors(tmp_path / "m.safetensors", {"a": values, "b": big}, dtype))
    a, b = tensor_source(found["a"]), tensor_source(found["b"])
    assert (a.dtype, a.shape, a.n_rows) == (dtype, (37, 700), 37)
    for start, stop in ((0, 37), (5, 6), (36, 37), (0, 1), (10, 10)):
        rows = a.read(start, stop)
        assert rows.dtype == np.float32 and rows.flags.c_contiguous
        np.testing.assert_array_equal(rows, values[start:stop])
    np.testing.assert_array_equal(b.read(0, 3), big)


def test_a_vector_is_one_row(tmp_path: Path) -> None:
    values = bf16_values((9,), 5)
    source = tensor_source(read_header(pack_safetensors(tmp_path / "m.safetensors", {"n": values}))["n"])
    assert source.n_rows == 1
    np.testing.assert_array_equal(source.read(0, 1), values[None])


def test_special_values_survive(tmp_path: Path) -> None:
    values = np.array([[0.0, -0.0, np.inf, -np.inf, np.nan, 2.0**-133]], np.float32)
    source = tensor_source(read_header(pack_safetensors(tmp_path / "m.safetensors", {"a": values}))["a"])
    np.testing.assert_array_equal(source.read(0, 1).view(np.uint32), values.view(np.uint32) & 0xFFFF0000)


def test_a_file_cut_after_it_was_opened_is_an_error_and_no_signal(tmp_path: Path) -> None:
    path = pack_safetensors(tmp_path / "m.safetensors", {"a": bf16_values((64, 64), 6)})
    source = tensor_source(read_header(path)["a"])
    with path.open("r+b") as file:
        file.truncate(path.stat().st_size - 100)
    with pytest.raises(CorruptFile, match="became shorter"):
        source.read(0, 64)
    assert source.read(0, 1).shape == (1, 64)


def test_weights_that_are_quantized_already_are_refused_by_type(tmp_path: Path) -> None:
    header = {"w": _tensor(dtype="F8_E4M3", offsets=[0, 2])}
    found = read_header(
        pack_raw_safetensors(tmp_path / "m.safetensors", json.dumps(header).encode(), bytes(2))
    )
    with pytest.raises(Unsupported, match="F8_E4M3"):
        tensor_source(found["w"])


def test_what_is_written_reads_back(tmp_path: Path) -> None:
    values = bf16_values((300, 20), 7)
    exact = np.float32([[1 / 3, 1e-30, 7.0]])
    sources = [
        TensorSource("w", values.shape, "BF16", lambda start, stop: values[start:stop], "w"),
        TensorSource("n", (3,), "F32", lambda start, stop: exact, "n"),
    ]
    write_safetensors(tmp_path / "m.safetensors", sources)
    found = read_header(tmp_path / "m.safetensors")
    assert [found["n"].dtype, found["w"].dtype] == ["F32", "BF16"]
    np.testing.assert_array_equal(tensor_source(found["w"]).read(0, 300), values)
    np.testing.assert_array_equal(tensor_source(found["n"]).read(0, 1), exact)
    assert [path.name for path in tmp_path.iterdir()] == ["m.safetensors"]


def test_rounding_to_bfloat16_is_to_nearest_and_to_even() -> None:
    bits = np.array(
        [0x3F808000, 0x3F818000, 0x3F808001, 0x3F807FFF, 0x7F7FFFFF, 0x7F800001, 0xFFC00000], np.uint32
    )
    rounded = to_bfloat16(bits.view(np.float32))
    assert [hex(value) for value in rounded] == [
        "0x3f80",
        "0x3f82",
        "0x3f81",
        "0x3f80",
        "0x7f80",
        "0x7fc0",
        "0xffc0",
    ]


def _is_a_sentence(error: Exception) -> None:
    message = str(error)
    assert not message.endswith(".") and "\n" not in message and "download it again" in message


def test_a_file_that_the_disk_cannot_hold_is_refused_before_it_is_begun(tmp_path: Path) -> None:
    def never(start: int, stop: int) -> Float32s:
        raise AssertionError("nothing may be read")

    huge = TensorSource("huge", (1 << 40, 1024), "BF16", never, "nowhere")
    with pytest.raises(NoSpace, match=r"needs 2251799\.81 GB, but the disk has"):
        write_safetensors(tmp_path / "m.safetensors", [huge])
    assert list(tmp_path.iterdir()) == []
