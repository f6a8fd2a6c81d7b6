"""Write a checkpoint: one safetensors file, BF16 or F32, and the small files beside it."""

import json
import os
import shutil
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from quantize.errors import NoSpace
from quantize.source import TensorSource
from quantize.sources.rows import Float32s

_SLAB = 1 << 22  # elements


def write_safetensors(path: Path, tensors: Iterable[TensorSource]) -> None:
    """Write all tensors, float32 sources of dtype F32 as F32, everything else as BF16; the file appears whole or not at all.

    Raises NoSpace before anything is written when the disk has too little room.
    """
    ordered = sorted(tensors, key=lambda tensor: tensor.name)
    header: dict[str, object] = {"__metadata__": {"format": "pt"}}
    offset = 0
    for tensor in ordered:
        kind = _stored_as(tensor)
        end = offset + tensor.n_elements * (4 if kind == "F32" else 2)
        header[tensor.name] = {"dtype": kind, "shape": list(tensor.shape), "data_offsets": [offset, end]}
        offset = end
    raw = json.dumps(header, separators=(",", ":")).encode()
    raw += b" " * (-len(raw) % 8)
    part = path.with_name(path.name + ".part")
    part.unlink(missing_ok=True)  # of a run that was killed
    need, free = 8 + len(raw) + offset, shutil.disk_usage(path.parent).free
    if need > free:
        raise NoSpace(
            f"{path} needs {need / 1e9:.2f} GB, but the disk has {free / 1e9:.2f} GB free; free some space and rerun the command"
        )
    with named_errors(part), part.open("wb") as file:
        file.write(len(raw).to_bytes(8, "little") + raw)
        for tensor in ordered:
            step = max(1, _SLAB // tensor.shape[-1])
            for start in range(0, tensor.n_rows, step):
                rows = tensor.read(start, min(start + step, tensor.n_rows))
                file.write((rows if _stored_as(tensor) == "F32" else to_bfloat16(rows)).data)
        file.flush()
        os.fsync(file.fileno())
    part.replace(path)


@contextmanager
def named_errors(path: Path) -> Iterator[None]:
    """Name the file in an OSError of a write; a full disk does not."""
    try:
        yield
    except OSError as error:
        if error.filename is None:
            raise OSError(error.errno, error.strerror, os.fspath(path)) from error
        raise


def to_bfloat16(rows: Float32s) -> NDArray[np.uint16]:
    """Round float32 to bfloat16, to nearest with ties to even; a NaN stays one."""
    bits = rows.view(np.uint32)
    rounded = (bits + (np.uint32(0x7FFF) + (bits >> np.uint32(16) & np.uint32(1)))) >> np.uint32(16)
    nan = (bits & np.uint32(0x7FFFFFFF)) > np.uint32(0x7F800000)
    return np.where(nan, bits >> np.uint32(16) | np.uint32(64), rounded).astype("<u2")


def _stored_as(tensor: TensorSource) -> str:
    return "F32" if tensor.dtype == "F32" else "BF16"
