"""Compare a compiled quantizer with ggml's: random weights, and blocks that are hard to round."""

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from quantize import ggml
from quantize.ggml_types import GGMLQuantizationType

Float32s = NDArray[np.float32]
# ggml ends the process where its search of a grid overflows. Larger weights fit no type: the encoder refuses them before.
LARGEST_ON_A_GRID = 1e9


def agrees(
    type_: GGMLQuantizationType,
    with_imatrix: bool,
    quantize: Callable[[Float32s, Float32s | None], NDArray[np.uint8]],
) -> bool:
    """Return whether `quantize` gives exactly the library's bytes for all samples."""
    largest = LARGEST_ON_A_GRID if type_.name.startswith(("IQ2", "IQ3")) else float(np.finfo(np.float32).max)
    for rows in (usual_rows(), hostile_rows(largest=largest)):
        imatrix = importances(rows.shape[1]) if with_imatrix else None
        if not np.array_equal(quantize(rows, imatrix), ggml.quantize_chunk(type_, rows, imatrix)):
            return False
    return True


def usual_rows(n_rows: int = 67, n_cols: int = 1792, seed: int = 0) -> Float32s:
    """Weights as models have them: normal, about 0.02 wide, wider in some columns, rounded to bfloat16 in every other row."""
    random = np.random.default_rng(seed)
    rows = (
        random.standard_normal((n_rows, n_cols)) * 0.02 * (1 + 9 * (random.random(n_cols) > 0.99))
    ).astype(np.float32)
    rows[::2] = (rows[::2].view(np.uint32) & np.uint32(0xFFFF0000)).view(np.float32)
    return rows


def hostile_rows(
    n_cols: int = 512, seed: int = 1, largest: float = float(np.finfo(np.float32).max)
) -> Float32s:
    """Rows of finite weights that reach the edges: zeros of both signs, one value, outliers, all magnitudes of float32 up to `largest`, ties."""
    random = np.random.default_rng(seed)
    columns = np.arange(n_cols)

    def normal() -> NDArray[np.float64]:
        return random.standard_normal(n_cols)

    def outlier(value: float, every: int) -> NDArray[np.float64]:
        return np.where(columns % every == every // 2, value, normal() * 0.02)

    rows = [
        np.zeros(n_cols),
        np.full(n_cols, -0.0),
        np.where(columns % 2, 0.0, -0.0),
        np.where(columns % 3, -0.0, 0.0),
        np.full(n_cols, 0.37),
        np.full(n_cols, -0.37),
        np.where(columns % 2, 1.0, -1.0),
        np.where(columns % 64 < 32, 1.0, -1.0),
        np.abs(normal()),
        -np.abs(normal()),
        np.maximum(normal(), 0.0),
        np.where(columns == 100, 1.0, 0.0),
        np.where(columns % 61 == 0, -1e-3, 0.0),
        np.where(columns % 2, normal(), 0.0),
        outlier(5.0, 37),
        outlier(-1e6, 256),
        outlier(3e38, 512),
        np.where(columns % 96 < 32, 0.0, normal()),
        *(normal() * 10.0**exponent for exponent in range(-45, 38)),
        *(np.sign(normal()) * 10.0 ** random.uniform(-45, 38, n_cols) for _ in range(16)),
        *(normal() * 10.0 ** random.uniform(-4, 4, n_cols) for _ in range(16)),
        *(normal() * np.repeat(10.0 ** random.uniform(-20, 4, n_cols // 16), 16) for _ in range(16)),
        *(random.integers(-3, 4, n_cols) * 0.25 for _ in range(8)),
        *(1.0 + 1e-7 * random.integers(0, 3, n_cols) for _ in range(8)),
    ]
    return np.stack(rows).clip(-largest, largest).astype(np.float32)


def importances(n_cols: int, seed: int = 2) -> Float32s:
    """Return an importance matrix's row: mostly of one magnitude, some columns hot, some never used."""
    random = np.random.default_rng(seed)
    hot = np.where(random.random(n_cols) > 0.98, 1e4, 1.0)
    values: Float32s = (random.random(n_cols) * hot).astype(np.float32)
    values[random.random(n_cols) > 0.9] = 0.0
    values[n_cols // 2 : n_cols // 2 + 48] = 0.0
    return values


__all__ = ["LARGEST_ON_A_GRID", "agrees", "hostile_rows", "importances", "usual_rows"]
