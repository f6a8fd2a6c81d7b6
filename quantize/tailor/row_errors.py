"""Measure what quantization types do to rows of weights: quantize them with the real kernels, and weigh the squared errors by column."""

from collections.abc import Collection, Sequence

import numpy as np
from numpy.typing import NDArray

from quantize import ggml
from quantize.encoder import quantizer
from quantize.ggml_types import BLOCK, GGMLQuantizationType
from quantize.kernels.dispatch import Quantizer

Floats = NDArray[np.float32]


class RowErrors:
    """The errors of some types; safe to call from several threads.

    `with_imatrix` are the kinds of rows that will come: with importance, without it, or both; `n_weights` are all of them.
    """

    def __init__(
        self, types: Sequence[GGMLQuantizationType], with_imatrix: Collection[bool], n_weights: int
    ) -> None:
        self._types = tuple(types)
        self._quantizers: dict[tuple[GGMLQuantizationType, bool], Quantizer] = {
            (one, known): quantizer(one, known, n_weights) for one in types for known in with_imatrix
        }

    def __call__(self, rows: Floats, weights: Floats, importance: Floats | None) -> Floats:
        """Return the squared errors of each row in each type, summed over columns times `weights` (n_columns,): float32 (n_types, n_rows).

        They are infinite where a type does not fit the rows, or needs the `importance` of columns that is not known.
        """
        n_columns = rows.shape[1]
        out = np.full((len(self._types), len(rows)), np.inf, np.float32)
        for i, one in enumerate(self._types):
            fits = n_columns % BLOCK[one][0] == 0
            if fits and (importance is not None or not ggml.requires_imatrix(one)):
                out[i] = self._measured(one, rows, weights, importance)
        return out

    def _measured(
        self, type_: GGMLQuantizationType, rows: Floats, weights: Floats, importance: Floats | None
    ) -> Floats:
        raw = self._quantizers[type_, importance is not None](rows, importance)
        difference = ggml.dequantize(type_, raw, rows.shape[1])
        np.subtract(difference, rows, out=difference)
        np.multiply(difference, difference, out=difference)
        return np.asarray(difference @ weights)


__all__ = ["RowErrors"]
