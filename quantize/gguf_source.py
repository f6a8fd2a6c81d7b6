"""A GGUF as the source of a new one: one file or all its shards, read row by row.

Tensors keep their stored bytes at hand, so that what need not change is copied and never requantized. Split-expert files of December
2023 come out merged (repair.py).
"""

import hashlib
import re
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from quantize import ggml
from quantize.errors import CorruptFile
from quantize.ggml_types import row_bytes
from quantize.gguf_header import GgufHeader, GgufTensor, read_header
from quantize.repair import merge_experts
from quantize.source import ModelSource, TensorSource

_SHARD = re.compile(r"(?P<stem>.*)-(?P<number>\d{5})-of-(?P<count>\d{5})\.gguf")
_MAX_SHARDS = 1 << 12


def open_gguf(path: Path) -> ModelSource:
    """Read the headers of a GGUF model; give the first shard for one in several files.

    Raises CorruptFile for headers that contradict themselves or each other and for missing shards and experts, Unsupported for a
    file that is no GGUF.
    """
    files = read_shards(path)
    tensors = [_tensor_source(shard, tensor) for shard, header in files for tensor in header.tensors]
    metadata = {key: value for key, value in files[0][1].metadata.items() if not key.startswith("split.")}
    return merge_experts(ModelSource(metadata, tensors, _fingerprint(files)), path.name)


def read_shards(path: Path) -> list[tuple[Path, GgufHeader]]:
    """Read the header of every file of a model and check that they belong together."""
    first = read_header(path)
    count = first.get("split.count", 0)
    if not isinstance(count, int) or count < 2:
        return [(path, first)]
    name = _SHARD.fullmatch(path.name)
    if name is None or int(name["count"]) != count or count > _MAX_SHARDS:
        raise CorruptFile(
            f"{path} says that it is one of {count} files; its name must end in -00001-of-{count:05d}.gguf."
        )
    if first.get("split.no") != 0:
        raise CorruptFile(
            f"{path} is not the first of its {count} files; name {name['stem']}-00001-of-{count:05d}.gguf."
        )
    files = [(path, first)]
    for number in range(1, count):
        shard = path.with_name(f"{name['stem']}-{number + 1:05d}-of-{count:05d}.gguf")
        if not shard.exists():
            raise CorruptFile(f"{shard} is missing: the model has {count} files that must lie in one folder.")
        header = read_header(shard)
        if (header.get("split.no"), header.get("split.count")) != (number, count):
            raise CorruptFile(
                f"{shard} does not say that it is file {number + 1} of {count}; download it again."
            )
        files.append((shard, header))
    names = [tensor.name for _, header in files for tensor in header.tensors]
    expected = first.get("split.tensors.count", len(names))
    if len(set(names)) < len(names) or len(names) != expected:
        raise CorruptFile(f"{path} and its parts have {len(set(names))} tensors and should have {expected}.")
    return files


def _tensor_source(path: Path, tensor: GgufTensor) -> TensorSource:
    n_bytes = row_bytes(tensor.type, tensor.shape[-1])

    def read_raw(start: int, stop: int) -> NDArray[np.uint8]:
        rows = np.empty((stop - start, n_bytes), np.uint8)
        view = rows.reshape(-1).data
        with path.open("rb", buffering=0) as file:
            file.seek(tensor.offset + start * n_bytes)
            while view:
                n = file.readinto(view)
                if not n:
                    raise CorruptFile(f"{path} became shorter while it was read; download it again.")
                view = view[n:]
        return rows

    def read(start: int, stop: int) -> NDArray[np.float32]:
        return ggml.dequantize(tensor.type, read_raw(start, stop), tensor.shape[-1])

    return TensorSource(
        tensor.name, tensor.shape, tensor.type.name, read, f"{path.name}: {tensor.name}", read_raw
    )


def _fingerprint(files: list[tuple[Path, GgufHeader]]) -> str:
    digest = hashlib.sha256()
    for path, header in files:
        status = path.stat()
        digest.update(
            f"{path.resolve()} {status.st_size} {status.st_mtime_ns} {header.data_offset}\n".encode(
                "utf-8", "surrogateescape"
            )
        )
    return digest.hexdigest()


__all__ = ["open_gguf", "read_shards"]
