"""Read the header of a GGUF file: metadata and the tensor list, every number checked before it is used.

The one reader of GGUF headers in the project. It needs only the standard library, takes a path or anything that can
give bytes at an offset (a remote file by Range requests), and never touches tensor data. Long arrays, such as a vocabulary, are
kept as bytes and decoded when something asks. What it accepts, llama.cpp's own reader accepts too: version 2 or 3, little-endian,
tensors packed one after the other at the file's alignment.
"""

import os
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from math import prod
from pathlib import Path
from types import MappingProxyType
from typing import Any

from quantize.errors import CorruptFile, MalformedFile, Unsupported
from quantize.ggml_types import BLOCK, GGMLQuantizationType, GGUFValueType, row_bytes
from quantize.source import Value
from quantize.sources.byte_reader import MAX_STRING, ByteReader, Cursor, FileReader
from quantize.sources.input_file import opened
from quantize.sources.lazy_array import NUMBERS, U32, U64, LazyArray
from quantize.wording import counted, shown

MAGIC = b"GGUF"
DEFAULT_ALIGNMENT = 32

# Far above any real model, far below what would hurt: the largest known vocabularies have 262,144 tokens.
MAX_KEYS = 1 << 16
MAX_TENSORS = 1 << 17
MAX_ELEMENTS = 1 << 24
MAX_NAME = 63  # bytes; ggml keeps a name in 64
MAX_DIMS = 4
MAX_ALIGNMENT = 1 << 20

# first bytes of a file that is not a GGUF -> its format
_IMPOSTORS = (
    (b"version https://git-lfs", "is a Git LFS pointer, not the model; download the real file"),
    (b"<!doctype html", "is an HTML page, not a model; its URL is wrong or needs a login"),
    (b"<html", "is an HTML page, not a model; its URL is wrong or needs a login"),
    (b"<?xml", "is an XML page, not a model; its URL is wrong"),
    (b"{", "is JSON text, not a GGUF file"),
    (
        b"tjgg",
        "is a GGML file from before August 2023, which llama.cpp no longer supports; download it as GGUF",
    ),
    (
        b"lmgg",
        "is a GGML file from before August 2023, which llama.cpp no longer supports; download it as GGUF",
    ),
    (
        b"fmgg",
        "is a GGML file from before August 2023, which llama.cpp no longer supports; download it as GGUF",
    ),
    (b"pk\x03\x04", "is a ZIP or PyTorch archive, not a GGUF file"),
    (b"\x1f\x8b", "is gzip-compressed; unpack it first"),
)


@dataclass(frozen=True)
class GgufTensor:
    """One entry of the tensor list: `shape` in numpy order, `offset` absolute and `n_bytes` of its data in the file."""

    name: str
    type: GGMLQuantizationType
    shape: tuple[int, ...]
    offset: int
    n_bytes: int

    @property
    def n_elements(self) -> int:
        return prod(self.shape)


@dataclass(frozen=True)
class GgufHeader:
    """A whole GGUF header; all offsets are absolute and proven to lie inside the file."""

    version: int
    metadata: Mapping[str, Value]
    tensors: tuple[GgufTensor, ...]
    alignment: int
    data_offset: int
    file_size: int

    @property
    def architecture(self) -> str:
        """Return the model's architecture, such as "llama"; empty when the file does not say."""
        return str(self.get("general.architecture", ""))

    def get(self, key: str, default: Any = None) -> Any:
        """Return the plain value of a metadata key, or `default`."""
        value = self.metadata.get(key)
        return default if value is None else value.value

    def tensor(self, name: str) -> GgufTensor | None:
        """Find a tensor by its name."""
        return self._by_name.get(name)

    @cached_property
    def _by_name(self) -> dict[str, GgufTensor]:
        return {tensor.name: tensor for tensor in self.tensors}


def read_header(source: str | os.PathLike[str] | ByteReader, name: str | None = None) -> GgufHeader:
    """Read and check the header of a GGUF file.

    `name` stands for the file in error messages; the path by default. Raises CorruptFile for bytes that contradict
    themselves (with the number that does), Unsupported for another kind of file, QuantizeError when it cannot be opened.
    """
    if isinstance(source, str | os.PathLike):
        path = Path(source)
        with opened(path) as fd:
            return _read(FileReader(fd), name or str(path))
    return _read(source, name or "the GGUF file")


def _read(reader: ByteReader, name: str) -> GgufHeader:
    cursor = Cursor(reader, name)
    version, n_tensors, n_keys = _read_start(cursor)
    metadata: dict[str, Value] = {}
    for index in range(n_keys):
        key = cursor.string(f"the name of metadata key {index}", MAX_STRING)
        if not key or key in metadata:
            raise MalformedFile(
                f"{name}: metadata key {_shown(key)} (number {index}) is {'given twice' if key else 'empty'}"
            )
        metadata[key] = _read_value(cursor, key)
    alignment = _alignment(metadata, name)
    entries = [_read_tensor(cursor, index) for index in range(n_tensors)]
    data_offset = _pad(cursor.position, alignment) if entries else cursor.position
    tensors = _place(entries, data_offset, alignment, cursor)
    return GgufHeader(version, MappingProxyType(metadata), tensors, alignment, data_offset, cursor.size)


def _read_start(cursor: Cursor) -> tuple[int, int, int]:
    """Read magic, version and the two counts; tell files that are something else by their first bytes."""
    name, size, start = cursor.name, cursor.size, bytes(cursor.data[:4096])
    if size == 0:
        raise CorruptFile(f"{name} is empty (0 bytes); download it again")
    if not start.startswith(MAGIC[:size]):
        if not any(start):
            raise CorruptFile(
                f"{name} begins with {counted(len(start), 'zero byte')}; the download is incomplete: download it again"
            )
        beginning = start.lstrip(b"\xef\xbb\xbf \t\r\n").lower()
        for prefix, sentence in _IMPOSTORS:
            if beginning.startswith(prefix):
                raise Unsupported(f"{name} {sentence}")
        if start[8:9] == b"{":
            raise Unsupported(f"{name} is a safetensors file, not GGUF; convert its folder first")
        raise Unsupported(
            f"{name} is not a GGUF file: it begins with the bytes {start[:4].hex(' ')} instead of GGUF"
        )
    if size < 24:
        raise CorruptFile(
            f"{name} is only {counted(size, 'byte')} long, but a GGUF header is at least 24 bytes long; download it again"
        )
    cursor.position = len(MAGIC)
    version = cursor.number(U32)
    if version & 0xFFFF == 0:
        raise Unsupported(
            f"{name} is a big-endian GGUF file (version field {version:#x}); download the little-endian one"
        )
    if version not in {2, 3}:
        advice = "convert it again" if version < 2 else "update mixcli"
        raise Unsupported(
            f"{name} is GGUF version {version}, but only versions 2 and 3 are supported; {advice}"
        )
    n_tensors, n_keys = cursor.number(U64), cursor.number(U64)
    for count, limit, what in ((n_tensors, MAX_TENSORS, "tensors"), (n_keys, MAX_KEYS, "metadata keys")):
        if count > limit:
            raise CorruptFile(
                f"{name} declares {count:,} {what}; the limit is {limit:,}; the file is damaged"
            )
    return version, n_tensors, n_keys


def _read_value(cursor: Cursor, key: str) -> Value:
    type_ = _value_type(cursor, key)
    if type_ == GGUFValueType.STRING:
        return Value(type_, cursor.string(f"the value of {_shown(key)}", MAX_STRING))
    if type_ != GGUFValueType.ARRAY:
        return Value(type_, cursor.number(NUMBERS[type_][0]))
    item, count = _value_type(cursor, key), cursor.number(U64)
    if item == GGUFValueType.ARRAY:
        raise Unsupported(
            f"{cursor.name}: {_shown(key)} is an array of arrays, which llama.cpp does not support"
        )
    if count > MAX_ELEMENTS:
        raise CorruptFile(
            f"{cursor.name}: {_shown(key)} declares {count:,} elements; the limit is {MAX_ELEMENTS:,}; the file is damaged"
        )
    start = cursor.position
    if item == GGUFValueType.STRING:
        cursor.skip_strings(count, _shown(key))
        raw = bytes(cursor.data[start : cursor.position])
    else:
        raw = cursor.take(count * NUMBERS[item][0].size)
    return Value(type_, LazyArray(item, count, raw), item)


def _value_type(cursor: Cursor, key: str) -> GGUFValueType:
    number = cursor.number(U32)
    if number > max(GGUFValueType):
        raise MalformedFile(f"{cursor.name}: {_shown(key)} has value type {number}, which does not exist")
    return GGUFValueType(number)


def _alignment(metadata: Mapping[str, Value], name: str) -> int:
    found = metadata.get("general.alignment")
    if found is None:
        return DEFAULT_ALIGNMENT
    value = found.value
    if found.type != GGUFValueType.UINT32 or not 0 < value <= MAX_ALIGNMENT or value & (value - 1):
        raise MalformedFile(
            f"{name}: general.alignment is {shown(value)}; it must be a power of two up to {MAX_ALIGNMENT:,}"
        )
    return int(value)


def _read_tensor(cursor: Cursor, index: int) -> tuple[str, GGMLQuantizationType, tuple[int, ...], int]:
    """Read one tensor's name, type, shape in numpy order and offset relative to the data section."""
    name = cursor.string(f"the name of tensor {index}", MAX_NAME)
    where = f"{cursor.name}: tensor {_shown(name)}"
    n_dims = cursor.number(U32)
    if not 1 <= n_dims <= MAX_DIMS:
        raise MalformedFile(f"{where} has {n_dims} dimensions; it must have 1 to {MAX_DIMS}")
    dims = [cursor.number(U64) for _ in range(n_dims)]
    if 0 in dims or prod(dims) >= 1 << 48:
        raise MalformedFile(f"{where} has the impossible shape {tuple(reversed(dims))}")
    number = cursor.number(U32)
    try:
        type_ = GGMLQuantizationType(number)
        row_bytes(type_, dims[0])
    except ValueError as error:
        reason = (
            f"type {number}, which this version does not support"
            if number not in _TYPENUMBERS
            else str(error)
        )
        raise MalformedFile(f"{where} has {reason}") from error
    return name, type_, tuple(reversed(dims)), cursor.number(U64)


_TYPENUMBERS = frozenset(int(type_) for type_ in BLOCK)


def _place(
    entries: list[tuple[str, GGMLQuantizationType, tuple[int, ...], int]],
    data_offset: int,
    alignment: int,
    cursor: Cursor,
) -> tuple[GgufTensor, ...]:
    """Prove that the tensors lie one after the other inside the file, as llama.cpp demands."""
    tensors: list[GgufTensor] = []
    seen: set[str] = set()
    expected = 0
    for name, type_, shape, offset in entries:
        if name in seen or not name:
            raise MalformedFile(
                f"{cursor.name}: tensor {_shown(name)} is {'listed twice' if name else 'without a name'}"
            )
        seen.add(name)
        if offset != expected:
            problem = "overlaps the one before" if offset < expected else "leaves a gap"
            raise MalformedFile(
                f"{cursor.name}: tensor {_shown(name)} {problem}: its offset is {offset:,} and must be {expected:,}"
            )
        n_bytes = row_bytes(type_, shape[-1]) * prod(shape[:-1])
        tensors.append(GgufTensor(name, type_, shape, data_offset + offset, n_bytes))
        expected = _pad(offset + n_bytes, alignment)
    if tensors and (end := tensors[-1].offset + tensors[-1].n_bytes) > cursor.size:
        raise CorruptFile(
            f"{cursor.name} is truncated: {end - cursor.size:,} of {end:,} bytes are missing; "
            "the download is incomplete: download it again"
        )
    return tuple(tensors)


def _pad(n: int, alignment: int) -> int:
    return -(-n // alignment) * alignment


def _shown(name: str) -> str:
    """Return a name out of a file in a form that is safe and short enough to print."""
    return ascii(name if len(name) <= 80 else name[:77] + "...")


__all__ = ["ByteReader", "GgufHeader", "GgufTensor", "LazyArray", "read_header"]
