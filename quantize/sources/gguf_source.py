"""Read a GGUF, one file or all its shards, as the source of a new one.

Tensors keep their stored bytes at hand, so that what need not change is copied and never requantized. Split-expert files of December
2023 come out merged (repair.py).
"""

import hashlib
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from quantize import ggml
from quantize.errors import CorruptFile
from quantize.ggml_types import row_bytes
from quantize.source import ModelSource, TensorSource
from quantize.sources.gguf_header import GgufTensor
from quantize.sources.input_file import fingerprint_of, states_of
from quantize.sources.repair import merge_experts
from quantize.sources.shard_names import shard_paths
from quantize.sources.shards import open_shards


def open_gguf(path: Path) -> ModelSource:
    """Read the headers of a GGUF model, in one file or in several of which any may be named.

    Raises CorruptFile for headers that contradict themselves or each other and for missing shards and experts, Unsupported for a
    file that is not a GGUF.
    """
    states = dict(states_of((path, *shard_paths(path))))
    shards = open_shards(path)
    tensors = [
        _tensor_source(shard, tensor)
        for shard, header in zip(shards.paths, shards.headers, strict=True)
        for tensor in header.tensors
    ]
    metadata = {key: value for key, value in shards.whole.metadata.items() if not key.startswith("split.")}
    fingerprint = hashlib.sha256(b"".join(map(fingerprint_of, shards.paths))).hexdigest()
    sources = tuple((shard, states[shard]) for shard in shards.paths)
    return merge_experts(ModelSource(metadata, tensors, fingerprint, sources), path.name)


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
                    raise CorruptFile(f"{path} became shorter during the read; download it again")
                view = view[n:]
        return rows

    def read(start: int, stop: int) -> NDArray[np.float32]:
        return ggml.dequantize(tensor.type, read_raw(start, stop), tensor.shape[-1])

    return TensorSource(
        tensor.name, tensor.shape, tensor.type.name, read, f"{path.name}: {tensor.name}", read_raw
    )


__all__ = ["open_gguf"]
