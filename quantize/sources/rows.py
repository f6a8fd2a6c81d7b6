"""Read rows of a stored tensor as float32, in slabs straight from the file.

Each read opens the file, seeks and fills one array: nothing is shared between threads, and a disk error or a file cut
meanwhile is an exception (a memory map would end the process by SIGBUS).
"""

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from quantize.errors import CorruptFile, Unsupported
from quantize.source import TensorSource
from quantize.sources.safetensors import StoredTensor

Float32s = NDArray[np.float32]
ReadRows = Callable[[int, int], Float32s]
Convert = Callable[[NDArray[Any], Float32s, int], None]

_STEP = 1 << 18  # elements converted at a time: both sides of the conversion stay in a core's cache
FP8 = "F8_E4M3"
_STORED: dict[str, np.dtype[Any]] = {"BF16": np.dtype("<u2"), "F16": np.dtype("<f2"), "F32": np.dtype("<f4")}


def tensor_source(stored: StoredTensor) -> TensorSource:
    """Make a stored tensor readable row by row; Unsupported for a type that holds no plain weights."""
    if stored.dtype not in _STORED:
        raise Unsupported(
            f"{stored.path.name} stores tensor {stored.name!r} as {stored.dtype}; mixcli supports {', '.join(_STORED)} and {FP8}: "
            "use the original, unquantized checkpoint"
        )
    shape = stored.shape or (1,)
    where = f"{stored.path.name}: {stored.name}"
    return TensorSource(
        stored.name, shape, stored.dtype, _reader(stored, shape[-1]), where, file=lambda _row: stored.path
    )


def _reader(stored: StoredTensor, n_columns: int) -> ReadRows:
    dtype = _STORED[stored.dtype]

    def read(start: int, stop: int) -> Float32s:
        rows = np.empty((stop - start, n_columns), np.float32)
        read_stored(stored, dtype, start, rows, lambda raw, part, _: widen(stored.dtype, raw, part))
        return rows

    return read


def read_stored(
    stored: StoredTensor, dtype: np.dtype[Any], start: int, rows: Float32s, convert: Convert
) -> None:
    """Fill `rows` with the rows from `start` on, read as `dtype`; `convert` gets some rows, where they belong, and the first's number."""
    with stored.path.open("rb", buffering=0) as file:
        file.seek(stored.offset + start * rows.shape[1] * dtype.itemsize)
        if stored.dtype == "F32" and sys.byteorder == "little":
            _fill(file.readinto, rows, stored.path)
            return
        step = max(1, _STEP // rows.shape[1])
        buffer = np.empty((min(step, len(rows)), rows.shape[1]), dtype)
        for at in range(0, len(rows), step):
            part = rows[at : at + step]
            raw = buffer[: len(part)]
            _fill(file.readinto, raw, stored.path)
            convert(raw, part, start + at)


def widen(dtype: str, raw: NDArray[np.generic], out: Float32s) -> None:
    """Convert raw elements of `dtype` (BF16 as uint16) to float32 in `out`, exactly."""
    if dtype == "BF16":  # a bfloat16 is the upper half of a float32
        np.left_shift(raw, np.uint32(16), out=out.view(np.uint32), dtype=np.uint32)
    else:
        out[:] = raw


def _fill(readinto: Callable[[memoryview], int | None], array: NDArray[np.generic], path: Path) -> None:
    view = array.reshape(-1).view(np.uint8).data
    while view:
        n = readinto(view)
        if not n:
            raise CorruptFile(f"{path.name} became shorter during the read; download it again")
        view = view[n:]
