"""Lay out the result: pack GGUF headers, assign tensor offsets, split files into shards.

Everything is known before the first weight is read: sizes follow from types and shapes alone.
"""

import struct
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import Any

from quantize.errors import BadOption
from quantize.ggml_types import GGMLQuantizationType, GGUFValueType, row_bytes
from quantize.source import ModelSource, TensorSource, Value, u32
from quantize.sources.lazy_array import NUMBERS, LazyArray
from quantize.sources.shard_names import MAX_SHARDS

ALIGNMENT = 32
QUANTIZATION_VERSION = 2  # GGML_QNT_VERSION

# Set again for every file that is written
_OWN_KEYS = (
    "general.alignment",
    "general.file_type",
    "general.quantization_version",
    "split.no",
    "split.count",
    "split.tensors.count",
)

Entry = tuple[str, GGMLQuantizationType, tuple[int, ...], int]


@dataclass(frozen=True)
class PlacedTensor:
    """One tensor of the result: its source, its type, and where its bytes lie in its file."""

    source: TensorSource
    type: GGMLQuantizationType
    offset: int
    row_bytes: int

    @property
    def n_bytes(self) -> int:
        return self.source.n_rows * self.row_bytes

    @property
    def rows_per_expert(self) -> int:
        """Return the rows of one matrix of a stack; all rows of anything else."""
        return self.source.shape[-2] if len(self.source.shape) > 1 else 1

    @property
    def is_copy(self) -> bool:
        """Return whether the source already stores the very bytes that are wanted."""
        return self.source.read_raw is not None and self.source.dtype == self.type.name


@dataclass(frozen=True)
class PlacedFile:
    """One file of the result: its complete header, its tensors at absolute offsets, and its final size in bytes."""

    path: Path
    header: bytes
    tensors: tuple[PlacedTensor, ...]
    size: int


def lay_out(
    model: ModelSource,
    types: Mapping[str, GGMLQuantizationType],
    file_type: int,
    target: Path,
    *,
    extra: Mapping[str, Value] | None = None,
    split_max_size: int = 0,
) -> tuple[PlacedFile, ...]:
    """Place a model in one file, or in shards of at most `split_max_size` bytes.

    Tensors are ordered as llama_model_quantize orders them (whole-model tensors, then layer by layer, by name), and the
    metadata ends with the same keys as there, so that equal input gives equal files. `extra` keys come last.
    Raises BadOption when a single tensor is larger than a shard may be.
    """
    metadata = {key: value for key, value in model.metadata.items() if key not in _OWN_KEYS}
    metadata["general.quantization_version"] = u32(QUANTIZATION_VERSION)
    metadata["general.file_type"] = u32(file_type)
    metadata |= extra or {}
    tensors = sorted(model.tensors, key=lambda tensor: _file_order(tensor.name))
    if not split_max_size:
        return (_place(target, metadata, tensors, types),)
    groups = _shards(tensors, types, split_max_size, len(header_bytes(metadata | _split_keys(0, 1, 0), ())))
    if len(groups) == 1:
        return (_place(target, metadata, tensors, types),)
    stem = target.name.removesuffix(".gguf")
    return tuple(
        _place(
            target.with_name(f"{stem}-{number + 1:05d}-of-{len(groups):05d}.gguf"),
            ({} if number else metadata) | _split_keys(number, len(groups), len(tensors)),
            group,
            types,
        )
        for number, group in enumerate(groups)
    )


def header_bytes(metadata: Mapping[str, Value], entries: Sequence[Entry]) -> bytes:
    """Pack a GGUF header (version 3), padded to the alignment; entries are (name, type, numpy shape, offset in the data)."""
    parts = [b"GGUF", struct.pack("<IQQ", 3, len(entries), len(metadata))]
    for key, value in metadata.items():
        parts += (_text(key), struct.pack("<I", value.type), _payload(value.type, value.item, value.value))
    for name, type_, shape, offset in entries:
        parts += (_text(name), struct.pack(f"<I{len(shape)}QIQ", len(shape), *reversed(shape), type_, offset))
    header = b"".join(parts)
    return header + bytes(pad(len(header), ALIGNMENT) - len(header))


def pad(n: int, alignment: int) -> int:
    """Round `n` up to a multiple of `alignment`."""
    return -(-n // alignment) * alignment


def _payload(type_: GGUFValueType, item: GGUFValueType | None, value: Any) -> bytes:
    if type_ == GGUFValueType.STRING:
        return _text(value)
    if type_ != GGUFValueType.ARRAY:
        return NUMBERS[type_][0].pack(value)
    assert item is not None
    head = struct.pack("<IQ", item, len(value))
    if isinstance(value, LazyArray):
        return head + value.raw
    if item == GGUFValueType.STRING:
        return head + b"".join(map(_text, value))
    return head + struct.pack(f"<{len(value)}{NUMBERS[item][0].format[1:]}", *value)


def _text(value: str | bytes) -> bytes:
    data = value if isinstance(value, bytes) else value.encode("utf-8", "surrogateescape")
    return struct.pack("<Q", len(data)) + data


def _file_order(name: str) -> tuple[int, str]:
    layer = name.removeprefix("blk.").split(".", 1)[0] if name.startswith("blk.") else ""
    return (int(layer) if layer.isdecimal() else -1, name)


def _split_keys(number: int, count: int, n_tensors: int) -> dict[str, Value]:
    return {
        "split.no": Value(GGUFValueType.UINT16, number),
        "split.count": Value(GGUFValueType.UINT16, count),
        "split.tensors.count": Value(GGUFValueType.INT32, n_tensors),
    }


def _shards(
    tensors: Iterable[TensorSource], types: Mapping[str, GGMLQuantizationType], limit: int, first_header: int
) -> list[list[TensorSource]]:
    """Fill shards in file order, headers counted, so that no file is larger than `limit`."""
    groups: list[list[TensorSource]] = [[]]
    used = first_header + ALIGNMENT
    for tensor in tensors:
        n_bytes = pad(_n_bytes(tensor, types), ALIGNMENT) + len(
            header_bytes({}, [(tensor.name, types[tensor.name], tensor.shape, 0)])
        )
        if groups[-1] and used + n_bytes > limit:
            groups.append([])
            used = len(header_bytes(_split_keys(0, 1, 0), ())) + ALIGNMENT
        if used + n_bytes > limit or len(groups) > MAX_SHARDS:
            raise BadOption(
                f"shards of {limit:,} bytes are too small: {tensor.name} alone needs {used + n_bytes:,} bytes; pass a larger --split-max-size"
            )
        groups[-1].append(tensor)
        used += n_bytes
    return groups


def _place(
    path: Path,
    metadata: Mapping[str, Value],
    tensors: Sequence[TensorSource],
    types: Mapping[str, GGMLQuantizationType],
) -> PlacedFile:
    entries: list[Entry] = []
    end = 0
    for tensor in tensors:
        entries.append((tensor.name, types[tensor.name], tensor.shape, end))
        end = pad(end + _n_bytes(tensor, types), ALIGNMENT)
    header = header_bytes(metadata, entries)
    placed = tuple(
        PlacedTensor(tensor, type_, len(header) + offset, row_bytes(type_, tensor.shape[-1]))
        for tensor, (_, type_, _, offset) in zip(tensors, entries, strict=True)
    )
    return PlacedFile(path, header, placed, len(header) + end)


def _n_bytes(tensor: TensorSource, types: Mapping[str, GGMLQuantizationType]) -> int:
    return prod(tensor.shape[:-1]) * row_bytes(types[tensor.name], tensor.shape[-1])


__all__ = ["ALIGNMENT", "PlacedFile", "PlacedTensor", "header_bytes", "lay_out", "pad"]
