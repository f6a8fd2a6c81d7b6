"""Select compiled quantizers that are faster than ggml's and write the same bytes.

They are compiled by numba (the extra `fast`) from the modules below: on first use, only for the types that
are asked for, kept in the user's cache. Each is held against the library once for every CPU, library and version of this code
(check.py). Without numba, with NUMBA_DISABLE_JIT=1, or where one byte differs, the library serves.
"""

import importlib
import threading
from collections.abc import Callable
from functools import cache
from importlib.util import find_spec
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from quantize.ggml_types import BLOCK, GGMLQuantizationType, row_bytes
from quantize.kernels import cache as kernels_cache

Quantizer = Callable[[NDArray[np.float32], NDArray[np.float32] | None], NDArray[np.uint8]]

_MODULES = {
    "Q4_0": "quantize.kernels.blocks",
    "Q4_1": "quantize.kernels.blocks",
    "Q5_0": "quantize.kernels.blocks",
    "Q5_1": "quantize.kernels.blocks",
    "Q8_0": "quantize.kernels.blocks",
    "Q2_K": "quantize.kernels.with_min",
    "Q3_K": "quantize.kernels.symmetric",
    "Q4_K": "quantize.kernels.with_min",
    "Q5_K": "quantize.kernels.with_min",
    "Q6_K": "quantize.kernels.symmetric",
    "IQ4_NL": "quantize.kernels.nonlinear",
    "IQ4_XS": "quantize.kernels.nonlinear",
    "IQ3_XXS": "quantize.kernels.three_bits",
    "IQ3_S": "quantize.kernels.three_bits",
    "IQ2_XXS": "quantize.kernels.two_bits",
    "IQ2_XS": "quantize.kernels.two_bits",
    "IQ2_S": "quantize.kernels.two_bits",
}
_ONLY_WITH_IMATRIX = {"IQ2_XXS", "IQ2_XS"}  # ggml's own quantizer would end the process without one
FASTER = frozenset(_MODULES)  # the types that a kernel may serve
_lock = threading.Lock()


def quantizer(type_name: str, with_imatrix: bool = False) -> Quantizer | None:
    """Return the fast quantizer of a type ("Q4_K"), or None where the library's own must do.

    It takes float32 rows (n_rows, n_cols), all finite, and the importance of each column, float32 (n_cols,), or None: as was asked
    for here by `with_imatrix`. It gives uint8 (n_rows, bytes of a row), the bytes of ggml_quantize_chunk, and runs in the calling
    thread without Python's lock. ValueError for columns that are not whole blocks, or an imatrix that does not fit. The first call
    for a type compiles and checks it, which takes seconds.
    """
    with _lock:
        return _quantizer(type_name, with_imatrix)


@cache
def _quantizer(type_name: str, with_imatrix: bool) -> Quantizer | None:
    if type_name not in _MODULES or find_spec("numba") is None:
        return None
    if type_name in _ONLY_WITH_IMATRIX and not with_imatrix:
        return None
    try:
        folder = kernels_cache.folder()
        quantize = _compiled(type_name, with_imatrix, folder)
    except (ImportError, OSError):  # a numba that does not fit this numpy, or a cache on a full disk
        return None
    if quantize is None:
        return None
    name = f"{type_name} with imatrix" if with_imatrix else type_name
    verdict = kernels_cache.recall(folder, name)
    if verdict is None:
        from quantize.kernels.check import agrees  # needs the library

        verdict = agrees(GGMLQuantizationType[type_name], with_imatrix, quantize)
        kernels_cache.remember(folder, name, verdict)
    return quantize if verdict else None


def _compiled(type_name: str, with_imatrix: bool, folder: Path | None) -> Quantizer | None:
    import numba  # half a second, and it may be missing
    from numba.core.errors import NumbaError

    if numba.config.DISABLE_JIT:
        return None
    before, numba.config.CACHE_DIR = numba.config.CACHE_DIR, str(folder or "")
    try:
        module = importlib.import_module(_MODULES[type_name])
    finally:
        numba.config.CACHE_DIR = before
    type_ = GGMLQuantizationType[type_name]
    quantize = _quantizer_of(type_, with_imatrix, getattr(module, type_name.lower()))
    n_cols = BLOCK[type_][0]
    try:  # compiles, or loads what was compiled
        quantize(np.zeros((1, n_cols), np.float32), np.ones(n_cols, np.float32) if with_imatrix else None)
    except NumbaError:  # a version of numba that understands the kernels differently
        return None
    return quantize


def _quantizer_of(type_: GGMLQuantizationType, with_imatrix: bool, kernel: Callable[..., None]) -> Quantizer:
    nothing = _as_one_row(np.empty(0, np.float32))

    def quantize(rows: NDArray[np.float32], imatrix: NDArray[np.float32] | None) -> NDArray[np.uint8]:
        n_rows, n_cols = rows.shape
        if (imatrix is not None) != with_imatrix or (imatrix is not None and imatrix.shape != (n_cols,)):
            wanted = f"an importance matrix of {n_cols} columns" if with_imatrix else "no importance matrix"
            raise ValueError(f"this quantizer of {type_.name} takes {wanted}")
        out = np.empty((n_rows, row_bytes(type_, n_cols)), np.uint8)
        kernel(_as_one_row(rows), nothing if imatrix is None else _as_one_row(imatrix), out.reshape(-1))
        return out

    return quantize


def _as_one_row(array: NDArray[np.float32]) -> NDArray[np.float32]:
    """Return all values in a row, aligned and read-only: a kernel is compiled for exactly such an array."""
    row = np.require(array, np.float32, ["C", "A"]).reshape(-1)
    row.flags.writeable = False
    return row


__all__ = ["FASTER", "Quantizer", "quantizer"]
