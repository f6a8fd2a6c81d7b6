"""Read safetensors headers, with every number checked.

Layout (https://github.com/huggingface/safetensors#format): 8 bytes little-endian header length, a JSON object
{name: {dtype, shape, data_offsets: [begin, end]}}, then the data; offsets count from the end of the header.
"""

import math
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from quantize.errors import CorruptFile, MalformedFile
from quantize.sources.byte_reader import ByteReader, FileReader
from quantize.sources.folder import parse_json
from quantize.sources.input_file import opened, refuse_pointer
from quantize.wording import counted, shown

MAX_HEADER_BYTES = 100_000_000  # the limit of the reference library
MAX_DIMENSIONS = 8
MAX_ELEMENTS = 1 << 48

DTYPE_BITS = {
    "BOOL": 8,
    "U8": 8,
    "I8": 8,
    "F8_E4M3": 8,
    "F8_E5M2": 8,
    "F8_E8M0": 8,
    "U16": 16,
    "I16": 16,
    "F16": 16,
    "BF16": 16,
    "U32": 32,
    "I32": 32,
    "F32": 32,
    "U64": 64,
    "I64": 64,
    "F64": 64,
    "C64": 64,
    "F4": 4,
    "F6_E2M3": 6,
    "F6_E3M2": 6,
}


@dataclass(frozen=True)
class StoredTensor:
    """Where one tensor lies: `offset` counts from the start of the file, `n_bytes` is what shape and dtype need."""

    name: str
    dtype: str
    shape: tuple[int, ...]
    path: Path
    offset: int
    n_bytes: int


def read_header(path: Path, elsewhere: ByteReader | None = None) -> dict[str, StoredTensor]:
    """Read and check the header of a safetensors file; the tensors come sorted by name.

    `elsewhere` returns the bytes of a file that is not at `path` yet. Raises CorruptFile when the file is cut, the header is not sound JSON object, or any tensor's dtype, shape and byte
    range do not fit each other, the file, or the other tensors.
    """
    if elsewhere is not None:
        return _read(path, elsewhere)
    with opened(path) as fd:
        return _read(path, FileReader(fd))


def _read(path: Path, reader: ByteReader) -> dict[str, StoredTensor]:
    size = reader.size
    if size < 8:
        raise _bad(path, f"is only {counted(size, 'byte')} long")
    length = int.from_bytes(reader.read_at(0, min(size, 8)), "little")
    if length > MAX_HEADER_BYTES:
        refuse_pointer(path.name, reader.read_at(0, min(size, 64)))
        raise _bad(path, f"declares a header of {length:,} bytes; the limit is {MAX_HEADER_BYTES:,}")
    data_start = 8 + length
    if data_start > size:
        raise _bad(path, f"ends inside its header: it needs {counted(data_start, 'byte')} and has {size:,}")
    header = _parse(path, reader.read_at(8, length))
    tensors = [
        _entry(path, name, value, data_start) for name, value in header.items() if name != "__metadata__"
    ]
    _check_ranges(path, tensors, data_start, size)
    return {tensor.name: tensor for tensor in sorted(tensors, key=lambda tensor: tensor.name)}


def _parse(path: Path, raw: bytes) -> dict[str, Any]:
    header = parse_json(raw, lambda what: _bad(path, f"has a header that {what}"), strict=True)
    if not isinstance(header, dict):
        raise _bad(path, "has a header that is not a JSON object")
    return header


def _entry(path: Path, name: str, value: object, data_start: int) -> StoredTensor:
    if not isinstance(value, dict):
        raise _bad(path, f"has tensor {shown(name, 80)}, which is not an object")
    dtype, shape, offsets = value.get("dtype"), value.get("shape"), value.get("data_offsets")
    if not isinstance(dtype, str) or dtype not in DTYPE_BITS:
        raise _bad(path, f"has tensor {shown(name, 80)} of the unknown type {shown(dtype)}")
    if not isinstance(shape, list) or len(shape) > MAX_DIMENSIONS or not all(_is_count(n) for n in shape):
        raise _bad(path, f"has tensor {shown(name, 80)} of the impossible shape {shown(shape)}")
    if not isinstance(offsets, list) or len(offsets) != 2 or not all(_is_count(n) for n in offsets):
        raise _bad(path, f"has tensor {shown(name, 80)} with the impossible byte range {shown(offsets)}")
    n_elements = math.prod(shape)
    if n_elements > MAX_ELEMENTS:
        raise _bad(path, f"has tensor {shown(name, 80)} of the impossible shape {shown(shape)}")
    bits = n_elements * DTYPE_BITS[dtype]
    begin, end = offsets
    if bits % 8 or end - begin != bits // 8:
        raise _bad(
            path,
            f"has {counted(end - begin, 'byte')} for tensor {shown(name, 80)}, but {dtype} {shown(shape)} needs {bits // 8:,}",
        )
    return StoredTensor(name, dtype, tuple(shape), path, data_start + begin, end - begin)


def _check_ranges(path: Path, tensors: Iterable[StoredTensor], data_start: int, size: int) -> None:
    last: StoredTensor | None = None
    reached = data_start
    for tensor in sorted(tensors, key=lambda tensor: (tensor.offset, tensor.n_bytes)):
        end = tensor.offset + tensor.n_bytes
        if end > size:
            raise _bad(
                path, f"ends {counted(end - size, 'byte')} before the end of tensor {shown(tensor.name, 80)}"
            )
        if tensor.offset < reached:
            other = last.name if last else "the header"
            raise _bad(path, f"has tensor {shown(tensor.name, 80)}, which overlaps {shown(other, 80)}")
        last, reached = tensor, end


def _is_count(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and 0 <= value < 1 << 62


def _bad(path: Path, what: str) -> CorruptFile:
    return MalformedFile(f"{path.name} {what}")
