"""Headers of GGUF files: what real writers write is read, and every hand-packed lie is named."""

import os
import struct
import time
from pathlib import Path

import gguf
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from quantize.errors import CorruptFile, QuantizeError, Unsupported
from quantize.ggml_types import BLOCK, GGMLQuantizationType, GGUFValueType
from quantize.sources.gguf_header import GgufHeader, LazyArray, read_header

U32, U64, STRING, ARRAY = 4, 10, 8, 9


def packed(text: str | bytes) -> bytes:
    data = text.encode() if isinstance(text, str) else text
    return struct.pack("<Q", len(data)) + data


def key_u32(key: str, value: int) -> bytes:
    return packed(key) + struct.pack("<II", U32, value)


def key_text(key: str, value: str | bytes) -> bytes:
    return packed(key) + struct.pack("<I", STRING) + packed(value)


def tensor(name: str, dims: tuple[int, ...], type_: int = 0, offset: int = 0) -> bytes:
    return packed(name) + struct.pack(f"<I{len(dims)}QIQ", len(dims), *dims, type_, offset)


def header(
    keys: list[bytes],
    tensors: list[bytes],
    *,
    version: int = 3,
    n_keys: int | None = None,
    n_tensors: int | None = None,
) -> bytes:
    counts = (len(tensors) if n_tensors is None else n_tensors, len(keys) if n_keys is None else n_keys)
    return b"GGUF" + struct.pack("<IQQ", version, *counts) + b"".join(keys) + b"".join(tensors)


def filled(head: bytes, n_data: int, alignment: int = 32) -> bytes:
    return head + bytes(-len(head) % alignment) + bytes(n_data)


ARCH = key_text("general.architecture", "llama")
GOOD = filled(header([ARCH], [tensor("a", (8, 2)), tensor("b", (4,), 0, 64)]), 64 + 16)


@pytest.fixture
def read(tmp_path: Path):
    def read_bytes(data: bytes) -> GgufHeader:
        path = tmp_path / "m.gguf"
        path.write_bytes(data)
        return read_header(path)

    return read_bytes


def test_reads_what_gguf_py_writes(tmp_path: Path) -> None:
    path = tmp_path / "m.gguf"
    writer = gguf.GGUFWriter(path, "llama")
    writer.add_uint32("u", 7)
    writer.add_float32("f", 0.5)
    writer.add_bool("yes", True)
    writer.add_string("s", "héé")
    writer.add_array("words", ["a", "", "日本"])
    writer.add_array("scores", [1.0, -2.5])
    writer.add_array("types", [1, -6])
    writer.add_tensor("x", np.arange(64, dtype=np.float32).reshape(2, 4, 8))
    writer.add_tensor("y", np.zeros((3, 34), dtype=np.uint8), raw_dtype=gguf.GGMLQuantizationType.Q8_0)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()

    found = read_header(path)
    assert found.architecture == "llama"
    assert [found.get(key) for key in ("u", "f", "yes", "s", "missing")] == [7, 0.5, True, "héé", None]
    assert list(found.get("words")) == ["a", "", "日本"]
    assert found.get("words")[2] == "日本"
    assert list(found.get("scores")) == [1.0, -2.5]
    assert list(found.get("types")) == [1, -6]
    assert found.metadata["types"].item == GGUFValueType.INT32
    x, y = found.tensor("x"), found.tensor("y")
    assert x and y
    assert (x.type, x.shape, x.n_bytes) == (GGMLQuantizationType.F32, (2, 4, 8), 256)
    assert (y.type, y.shape, y.n_bytes) == (GGMLQuantizationType.Q8_0, (3, 32), 102)
    data = path.read_bytes()
    assert np.array_equal(
        np.frombuffer(data[x.offset :][: x.n_bytes], np.float32), np.arange(64, dtype=np.float32)
    )
    reader = gguf.GGUFReader(path)
    assert [t.data_offset for t in reader.tensors] == [t.offset for t in found.tensors]


def test_table_of_types_is_that_of_the_gguf_package() -> None:
    theirs = {
        t.name: (int(t), gguf.GGML_QUANT_SIZES[t]) for t in gguf.GGMLQuantizationType if t.name != "Q8_1"
    }
    ours = {t.name: (int(t), BLOCK[t]) for t in GGMLQuantizationType}
    assert theirs.items() <= ours.items()
    assert {t.name: int(t) for t in gguf.GGUFValueType} == {t.name: int(t) for t in GGUFValueType}


def test_needs_no_numpy(python_imports) -> None:
    assert not {"numpy", "gguf", "llama_cpp"} & python_imports("quantize.sources.gguf_header")


def test_large_vocabulary_is_quick(read) -> None:
    n = 150_000
    words = b"".join(packed(f"token{i}") for i in range(n))
    merges = b"".join(packed(f"tok en{i}") for i in range(n))
    keys = [
        ARCH,
        packed("tokenizer.ggml.tokens") + struct.pack("<IIQ", ARRAY, STRING, n) + words,
        packed("tokenizer.ggml.merges") + struct.pack("<IIQ", ARRAY, STRING, n) + merges,
        packed("tokenizer.ggml.scores") + struct.pack("<IIQ", ARRAY, 6, n) + bytes(4 * n),
    ]
    data = filled(header(keys, []), 0)
    start = time.process_time()
    found = read(data)
    assert time.process_time() - start < 2
    assert len(found.get("tokenizer.ggml.tokens")) == n
    assert found.get("tokenizer.ggml.merges")[n - 1] == f"tok en{n - 1}"


def test_text_that_is_no_utf8_survives(read) -> None:
    found = read(
        header(
            [
                key_text("k", b"\xff\xfe"),
                packed("a") + struct.pack("<IIQ", ARRAY, STRING, 1) + packed(b"\x80"),
            ],
            [],
        )
    )
    assert found.get("k").encode("utf-8", "surrogateescape") == b"\xff\xfe"
    assert found.get("a")[0].encode("utf-8", "surrogateescape") == b"\x80"


def test_reads_through_any_byte_reader() -> None:
    asked: list[tuple[int, int]] = []

    class Remote:
        size = len(GOOD) + (1 << 33)

        def read_at(self, offset: int, n: int) -> bytes:
            asked.append((offset, n))
            return (GOOD + bytes(1 << 21))[offset : offset + n]

    assert [t.name for t in read_header(Remote(), "far.gguf").tensors] == ["a", "b"]
    assert len(asked) == 1


def test_header_longer_than_the_first_read(read) -> None:
    blob = bytes(range(256)) * 20_000
    found = read(header([packed("big") + struct.pack("<IIQ", ARRAY, 0, len(blob)) + blob, ARCH], []))
    assert isinstance(found.get("big"), LazyArray)
    assert found.get("big").raw == blob
    assert found.architecture == "llama"


LFS = b"version https://git-lfs.github.com/spec/v1\noid sha256:4d7a\nsize 26441533376\n"
NAMED_CASES = {
    "empty": (b"", CorruptFile, "is empty"),
    "one byte": (b"G", CorruptFile, "only 1 byte long, but a GGUF"),
    "three bytes": (b"GGU", CorruptFile, "only 3 bytes"),
    "other bytes": (b"abcd" * 9, Unsupported, "it begins with the bytes 61 62 63 64 instead of GGUF"),
    "magic only": (b"GGUF", CorruptFile, "only 4 bytes"),
    "cut after the counts": (GOOD[:24], CorruptFile, "ends inside its header"),
    "cut in the header": (GOOD[:60], CorruptFile, "ends inside its header"),
    "one byte short": (GOOD[:-1], CorruptFile, "is truncated: 1 of"),
    "no data": (GOOD[:-80], CorruptFile, "is truncated: 80 of"),
    "zeros": (bytes(4096), CorruptFile, "zero bytes"),
    "html": (b"\n<!DOCTYPE html><html>Sign in</html>", Unsupported, "HTML page"),
    "lfs": (LFS, Unsupported, "Git LFS pointer"),
    "json": (b'{"error":"Repository not found"}', Unsupported, "JSON"),
    "pickle": (b"PK\x03\x04" + bytes(40), Unsupported, "PyTorch"),
    "old ggml": (b"tjgg" + bytes(40), Unsupported, "before August 2023"),
    "safetensors": (struct.pack("<Q", 500) + b'{"x":{}}' + bytes(40), Unsupported, "safetensors"),
    "something else": (b"\x7fELF" + bytes(40), Unsupported, "not a GGUF file"),
    "version 1": (header([], [], version=1), Unsupported, "version 1"),
    "version 4": (header([], [], version=4), Unsupported, "version 4"),
    "version 0": (header([], [], version=0), Unsupported, "version"),
    "big-endian": (header([], [], version=3 << 24), Unsupported, "big-endian"),
    "many tensors": (header([], [], n_tensors=1 << 60), CorruptFile, "tensors; the limit"),
    "negative keys": (header([], [], n_keys=(1 << 64) - 1), CorruptFile, "metadata keys; the limit"),
    "long key": (header([struct.pack("<Q", 1 << 62)], []), CorruptFile, "metadata key 0"),
    "key beyond the end": (header([struct.pack("<Q", 1 << 20)], []), CorruptFile, "ends inside"),
    "empty key": (header([key_u32("", 1)], []), CorruptFile, "is empty"),
    "double key": (header([ARCH, ARCH], []), CorruptFile, "is given twice"),
    "value type 13": (header([packed("k") + struct.pack("<I", 13)], []), CorruptFile, "value type 13"),
    "array of arrays": (
        header([packed("k") + struct.pack("<IIQ", 9, 9, 1)], []),
        Unsupported,
        "array of arrays",
    ),
    "huge array": (header([packed("k") + struct.pack("<IIQ", 9, 0, 1 << 40)], []), CorruptFile, "elements"),
    "array beyond the end": (
        header([packed("k") + struct.pack("<IIQ", 9, 10, 1000)], []),
        CorruptFile,
        "ends inside",
    ),
    "huge string in array": (
        header([packed("k") + struct.pack("<IIQQ", 9, 8, 2, (1 << 64) - 8)], []),
        CorruptFile,
        "a string in 'k'",
    ),
    "alignment 0": (header([key_u32("general.alignment", 0)], []), CorruptFile, "power of two"),
    "alignment 24": (header([key_u32("general.alignment", 24)], []), CorruptFile, "power of two"),
    "alignment 2^31": (header([key_u32("general.alignment", 1 << 31)], []), CorruptFile, "power of two"),
    "alignment text": (header([key_text("general.alignment", "32")], []), CorruptFile, "power of two"),
    "long tensor name": (header([], [tensor("x" * 64, (1,))]), CorruptFile, "name of tensor 0 declares 64"),
    "nameless tensor": (filled(header([], [tensor("", (1,))]), 4), CorruptFile, "without a name"),
    "no dims": (header([], [tensor("x", ())]), CorruptFile, "0 dimensions"),
    "five dims": (header([], [tensor("x", (1,) * 5)]), CorruptFile, "5 dimensions"),
    "zero dim": (header([], [tensor("x", (4, 0))]), CorruptFile, "impossible shape"),
    "overflow": (header([], [tensor("x", (1 << 32, 1 << 32))]), CorruptFile, "impossible shape"),
    "negative dim": (header([], [tensor("x", ((1 << 64) - 1,))]), CorruptFile, "impossible shape"),
    "type 4": (header([], [tensor("x", (32,), 4)]), CorruptFile, "type 4, which"),
    "type 99": (header([], [tensor("x", (32,), 99)]), CorruptFile, "type 99, which"),
    "row no multiple": (header([], [tensor("x", (100, 3), 12)]), CorruptFile, "not a multiple of the 256"),
    "double tensor": (
        filled(header([], [tensor("x", (8,)), tensor("x", (8,), 0, 32)]), 64),
        CorruptFile,
        "listed twice",
    ),
    "overlap": (
        filled(header([], [tensor("x", (16,)), tensor("y", (8,), 0, 32)]), 96),
        CorruptFile,
        "overlaps",
    ),
    "gap": (
        filled(header([], [tensor("x", (8,)), tensor("y", (8,), 0, 64)]), 96),
        CorruptFile,
        "leaves a gap",
    ),
    "offset far out": (filled(header([], [tensor("x", (8,), 0, 1 << 63)]), 32), CorruptFile, "leaves a gap"),
    "data far out": (filled(header([], [tensor("x", (1 << 30, 1 << 10))]), 64), CorruptFile, "is truncated"),
    "escape in a name": (header([key_u32("a\x1b[31m", 1)] * 2, []), CorruptFile, r"'a\x1b[31m'"),
}


@pytest.mark.parametrize("case", NAMED_CASES)
def test_names_what_is_wrong(read, case: str) -> None:
    data, error, words = NAMED_CASES[case]
    with pytest.raises(error) as caught:
        read(data)
    message = str(caught.value)
    assert words in message
    assert "\x1b" not in message
    assert message.count(". ") == 0 and not message.endswith(".")
    assert caught.value.exit_code == 5


def test_a_path_that_cannot_be_opened(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.gguf")
    for path, words in (
        (tmp_path, "is a folder"),
        (tmp_path / "none.gguf", "cannot be read"),
        (tmp_path / "pipe.gguf", "is a pipe"),  # which nobody writes to: opening it would wait for ever
        (Path("/dev/zero"), "is a device"),
    ):
        with pytest.raises(QuantizeError, match=words):
            read_header(path)


@settings(max_examples=300, deadline=None)
@given(data=st.data())
def test_flipped_and_cut_headers_never_surprise(data: st.DataObject) -> None:
    broken = bytearray(GOOD)
    for _ in range(data.draw(st.integers(1, 4))):
        broken[data.draw(st.integers(0, len(broken) - 1))] = data.draw(st.integers(0, 255))
    cut = bytes(broken[: data.draw(st.integers(0, len(broken)))])

    class Bytes:
        size = len(cut)

        def read_at(self, offset: int, n: int) -> bytes:
            assert 0 <= offset <= offset + n <= len(cut)
            return cut[offset : offset + n]

    try:
        found = read_header(Bytes(), "x")
    except QuantizeError:
        return
    assert all(t.offset + t.n_bytes <= len(cut) for t in found.tensors)


def test_good_file_is_read_and_accepted_by_ggml(read, ggml_accepts) -> None:
    found = read(GOOD)
    assert [(t.name, t.shape, t.n_bytes) for t in found.tensors] == [("a", (2, 8), 64), ("b", (4,), 16)]
    assert ggml_accepts(GOOD)
    assert not ggml_accepts(NAMED_CASES["gap"][0])
