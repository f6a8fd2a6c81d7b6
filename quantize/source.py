"""The data between readers and writer: a model as metadata and tensors that are read row by row."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from quantize.ggml_types import GGUFValueType

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray


@dataclass(frozen=True)
class Value:
    """One GGUF metadata value with its type on disk; `item` is the element type when `type` is ARRAY."""

    type: GGUFValueType
    value: Any
    item: GGUFValueType | None = None


def u32(value: int) -> Value:
    return Value(GGUFValueType.UINT32, int(value))


def f32(value: float) -> Value:
    return Value(GGUFValueType.FLOAT32, float(value))


def text(value: str) -> Value:
    return Value(GGUFValueType.STRING, value)


def flag(value: bool) -> Value:
    return Value(GGUFValueType.BOOL, bool(value))


def texts(values: Sequence[str | bytes]) -> Value:
    return Value(GGUFValueType.ARRAY, list(values), GGUFValueType.STRING)


def f32s(values: Sequence[float]) -> Value:
    return Value(GGUFValueType.ARRAY, list(values), GGUFValueType.FLOAT32)


def i32s(values: Sequence[int]) -> Value:
    return Value(GGUFValueType.ARRAY, list(values), GGUFValueType.INT32)


@dataclass(frozen=True)
class TensorSource:
    """One tensor of the result, readable in any slices of rows.

    `shape` is in numpy order, its last axis contiguous (GGUF's ne[0]); a stacked expert tensor is (n_expert, rows, cols).
    `read(start, stop)` gives rows [start, stop) of the tensor seen as (prod(shape[:-1]), shape[-1]), as a C-contiguous
    float32 array. It may be called from several threads at once. `where` names file and tensor for an error message.
    `file(row)` names the file that a row is read from, None where nothing is read from a file.
    A tensor that is already stored in a GGUF type has `dtype` with that type's name and `read_raw`, which returns the same rows as
    stored: uint8 of shape (n_rows, bytes of a row).
    """

    name: str
    shape: tuple[int, ...]
    dtype: str
    read: "Callable[[int, int], NDArray[np.float32]]"
    where: str
    read_raw: "Callable[[int, int], NDArray[np.uint8]] | None" = None
    file: "Callable[[int], Path | None] | None" = None

    @property
    def n_rows(self) -> int:
        rows = 1
        for n in self.shape[:-1]:
            rows *= n
        return rows

    @property
    def n_elements(self) -> int:
        return self.n_rows * self.shape[-1]

    @property
    def files(self) -> "set[Path]":
        """Return the files that rows are read from; the matrices of a stack may lie in several."""
        if self.file is None:
            return set()
        step = self.shape[-2] if len(self.shape) > 2 else self.n_rows
        found = (self.file(row) for row in range(0, self.n_rows, step))
        return {path for path in found if path}


@dataclass(frozen=True)
class ModelSource:
    """A whole model as the writer takes it.

    `metadata` is complete and in file order but for general.file_type and general.quantization_version, which the writer adds.
    `tensors` are in file order. `fingerprint` changes whenever any source byte or option that matters for the output could have changed
    (paths, sizes, times, option values), so that a journal of another run is never taken for this one's. `sources` are the files that
    it is read from, as far as they are here, each with its state before anything was read from it (see `states_of`).
    """

    metadata: Mapping[str, Value]
    tensors: Sequence[TensorSource]
    fingerprint: str
    sources: tuple[tuple[Path, object], ...] = ()
    notes: tuple[str, ...] = ()

    @property
    def files(self) -> tuple[Path, ...]:
        return tuple(path for path, _ in self.sources)
