"""Encode slabs of weights for the file: check, quantize, check again."""

from collections import Counter

import numpy as np
from numpy.typing import NDArray

from quantize import ggml
from quantize.errors import MalformedFile, Unsupported
from quantize.file_layout import PlacedTensor
from quantize.ggml_types import GGMLQuantizationType
from quantize.kernels import dispatch
from quantize.kernels.dispatch import Quantizer
from quantize.plan import Slab, WritePlan

_F16_LIMIT = 65520.0  # from here on a float16 rounds to infinity
# A block's scale is a float16, so no block type holds a larger value. ggml's search for one squares and cubes the weights, and where that
# overflows it aborts the process or never ends (IQ2_XXS and IQ2_XS from 1e15 on).
_HUGE = 1e9
_WIDE_TYPES = frozenset({GGMLQuantizationType.F32, GGMLQuantizationType.BF16, GGMLQuantizationType.F16})
KERNEL_WORTH = (
    1 << 26
)  # weights of a type from which on compiling a faster quantizer for it pays, even the first time


class Encoder:
    """Turns slabs into the bytes that the file holds; safe to call from several threads."""

    def __init__(self, plan: WritePlan) -> None:
        self._imatrix = plan.imatrix
        n_weights: Counter[tuple[GGMLQuantizationType, bool]] = Counter()
        for tensor in plan.tensors:
            if not tensor.is_copy:
                n_weights[tensor.type, self._importance(tensor) is not None] += tensor.source.n_elements
        self._quantizers = {
            (type_, with_imatrix): quantizer(type_, with_imatrix, n)
            for (type_, with_imatrix), n in n_weights.items()
        }

    def __call__(self, slab: Slab) -> memoryview:
        tensor = slab.tensor
        source = tensor.source
        if tensor.is_copy:
            if source.read_raw is None:
                raise AssertionError("a copy has stored bytes")
            raw = np.ascontiguousarray(source.read_raw(slab.start, slab.stop))
            if not ggml.is_valid(tensor.type, raw):
                raise MalformedFile(f"{source.where} has NaN or infinite values")
            return raw.reshape(-1).data
        rows = source.read(slab.start, slab.stop)
        largest = _largest(rows)
        if not np.isfinite(largest):
            raise MalformedFile(_not_finite(rows, slab))
        if tensor.type == GGMLQuantizationType.F16 and largest >= _F16_LIMIT:
            raise Unsupported(
                f"{source.where} has the value {largest:g}, too large for F16; choose BF16 or F32"
            )
        if largest > _HUGE and tensor.type not in _WIDE_TYPES:
            raise Unsupported(_too_large(source.where, largest, tensor.type))
        weights = self._importance(tensor)
        row = None if weights is None else weights[slab.start // tensor.rows_per_expert]
        out = self._quantizers[tensor.type, row is not None](rows, row)
        if not ggml.is_valid(tensor.type, out):
            raise Unsupported(_too_large(source.where, largest, tensor.type))
        return out.reshape(-1).data

    def _importance(self, tensor: PlacedTensor) -> NDArray[np.float32] | None:
        return self._imatrix.weights(tensor.source) if self._imatrix else None


def _too_large(where: str, largest: float, type_: GGMLQuantizationType) -> str:
    return f"{where} has values up to {largest:g}, too large for {type_.name}; choose BF16"


def quantizer(type_: GGMLQuantizationType, with_imatrix: bool, n_weights: int) -> Quantizer:
    """Return the function that turns finite float32 rows (n_rows, n_cols) into this type's bytes soonest.

    All candidates give the same bytes; a compiled one is looked for when there are enough weights to earn its compiling.
    """
    if type_ == GGMLQuantizationType.F32:
        return lambda rows, _: rows.view(np.uint8)
    if n_weights >= KERNEL_WORTH and (fast := dispatch.quantizer(type_.name, with_imatrix)):
        return fast
    ggml.prepare(type_)
    return lambda rows, imatrix: ggml.quantize_chunk(type_, rows, imatrix)


def _largest(rows: NDArray[np.float32]) -> float:
    """Return the largest absolute value; NaN or infinity when there is any."""
    with np.errstate(invalid="ignore"):
        return float(np.maximum(rows.max(), -rows.min()))


def _not_finite(rows: NDArray[np.float32], slab: Slab) -> str:
    row, column = np.argwhere(~np.isfinite(rows))[0]
    source = slab.tensor.source
    return (
        f"{source.where} has weights that are NaN or infinite, the first in row "
        f"{slab.start + int(row):,}, column {int(column):,} of {source.name}"
    )


__all__ = ["Encoder", "quantizer"]
