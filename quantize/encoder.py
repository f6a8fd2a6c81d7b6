"""Turn slabs of weights into the bytes that the file holds: checked, quantized, checked again."""

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from quantize import ggml
from quantize.errors import CorruptFile, Unsupported
from quantize.ggml_types import GGMLQuantizationType
from quantize.plan import Slab, WritePlan

_F16_LIMIT = 65520.0  # from here on a float16 rounds to infinity

Quantizer = Callable[[NDArray[np.float32], NDArray[np.float32] | None], NDArray[np.uint8]]


class Encoder:
    """Turns slabs into the bytes that the file holds; safe to call from several threads."""

    def __init__(self, plan: WritePlan) -> None:
        self._imatrix = plan.imatrix
        types = {tensor.type for tensor in plan.tensors if not tensor.is_copy}
        self._quantizers = {type_: quantizer(type_) for type_ in types}

    def __call__(self, slab: Slab) -> memoryview:
        tensor = slab.tensor
        source = tensor.source
        if tensor.is_copy:
            assert source.read_raw is not None
            raw = np.ascontiguousarray(source.read_raw(slab.start, slab.stop))
            if not ggml.is_valid(tensor.type, raw):
                raise CorruptFile(f"{source.where} holds NaN or infinite values; get the file again.")
            return raw.reshape(-1).data
        rows = source.read(slab.start, slab.stop)
        largest = _largest(rows)
        if not np.isfinite(largest):
            raise CorruptFile(_not_finite(rows, slab))
        if tensor.type == GGMLQuantizationType.F16 and largest >= _F16_LIMIT:
            raise Unsupported(
                f"{source.where} has the value {largest:g}, too large for F16; choose BF16 or F32."
            )
        out = self._quantizers[tensor.type](rows, self._importance(slab))
        if not ggml.is_valid(tensor.type, out):
            raise Unsupported(
                f"{source.where} has values up to {largest:g}, too large for {tensor.type.name}; choose BF16."
            )
        return out.reshape(-1).data

    def _importance(self, slab: Slab) -> NDArray[np.float32] | None:
        weights = self._imatrix.weights(slab.tensor.source) if self._imatrix else None
        return None if weights is None else weights[slab.start // slab.tensor.rows_per_expert]


def quantizer(type_: GGMLQuantizationType) -> Quantizer:
    """Give the fastest function that turns float32 rows (n_rows, n_cols) into this type's bytes, as the library would."""
    if type_ == GGMLQuantizationType.F32:
        return lambda rows, _: rows.view(np.uint8)
    ggml.prepare(type_)
    return lambda rows, imatrix: ggml.quantize_chunk(type_, rows, imatrix)


def _largest(rows: NDArray[np.float32]) -> float:
    """Give the largest absolute value; NaN or infinity when there is any."""
    with np.errstate(invalid="ignore"):
        return float(np.maximum(rows.max(), -rows.min()))


def _not_finite(rows: NDArray[np.float32], slab: Slab) -> str:
    bad = ~np.isfinite(rows)
    row, column = np.argwhere(bad)[0]
    source = slab.tensor.source
    return (
        f"{source.where}: {int(bad.sum())} of {rows.size:,} weights are NaN or infinite, the first in row "
        f"{slab.start + int(row):,}, column {int(column):,} of {source.name}; get the file again."
    )


__all__ = ["Encoder", "quantizer"]
