"""Rotary position embedding: the order of rows in a head, and Llama 3's frequency factors."""

from collections.abc import Callable
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from quantize.source import TensorSource
from quantize.sources.hparams import Hparams, RopeScaling
from quantize.sources.rows import Float32s

Index = NDArray[np.int64]


def interleave_halves(tensor: TensorSource, head_size: int) -> TensorSource:
    """Reorder the rows of a q or k projection from halves to pairs: of a head, row 2i+s comes from row s*head_size/2 + i."""
    return _reordered(tensor, lambda row: row % 2 * (head_size // 2) + row // 2, head_size)


def split_pairs(tensor: TensorSource, head_size: int) -> TensorSource:
    """Undo `interleave_halves`: of a head, row s*head_size/2 + i comes from row 2i+s."""
    half = head_size // 2
    return _reordered(tensor, lambda row: row % half * 2 + row // half, head_size)


def rope_factors(hparams: Hparams) -> list[TensorSource]:
    """Return the tensor rope_freqs.weight, (head_size / 2,), by which Llama 3's stretching divides each frequency; else nothing.

    Wavelengths below old_context / high are kept, those above old_context / low divided by the factor, and those between are
    blended linearly (Llama 3.1's reference code).
    """
    scaling = hparams.rope_scaling
    if scaling is None or scaling.kind != "llama3":
        return []
    factors = _llama3_factors(scaling, hparams.rope_base, hparams.head_size)

    def read(start: int, stop: int) -> Float32s:
        return factors[None, :][start:stop].copy()

    return [TensorSource("rope_freqs.weight", factors.shape, "F32", read, "rope_scaling of config.json")]


def _llama3_factors(scaling: RopeScaling, base: float, head_size: int) -> Float32s:
    """Return a number over a vector in float32, as the number times its reciprocals: torch computes so, and the last bit counts."""
    numbers = {name: np.float32(number) for name, number in scaling.parameters.items()}
    old, factor = numbers["original_max_position_embeddings"], numbers["factor"]
    low, high = numbers["low_freq_factor"], numbers["high_freq_factor"]
    exponents = np.arange(0, head_size, 2, dtype=np.float32) / np.float32(head_size)
    powers = (base ** exponents.astype(np.float64)).astype(np.float32)
    frequencies = np.float32(1) / powers
    wavelengths = np.float32(1) / frequencies * np.float32(2 * np.pi)
    smooth = (np.float32(1) / wavelengths * old - low) / (high - low)
    blended = np.float32(1) / ((np.float32(1) - smooth) / factor + smooth)
    factors = np.where(
        wavelengths < old / high, np.float32(1), np.where(wavelengths > old / low, factor, blended)
    )
    return factors.astype(np.float32)


def _reordered(tensor: TensorSource, source_row: Callable[[Index], Index], head_size: int) -> TensorSource:
    by_row = len(tensor.shape) > 1  # a bias is one row, its elements are what moves

    def read(start: int, stop: int) -> Float32s:
        if not by_row:
            order = np.arange(tensor.shape[0])
            order = order - order % head_size + source_row(order % head_size)
            return np.ascontiguousarray(tensor.read(start, stop)[:, order])
        first = start - start % head_size
        last = min(stop + -stop % head_size, tensor.n_rows)
        order = np.arange(start, stop)
        order = order - order % head_size + source_row(order % head_size) - first
        return tensor.read(first, last)[order]

    return replace(tensor, read=read)
