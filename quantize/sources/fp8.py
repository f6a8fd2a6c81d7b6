"""Read FP8 weights (e4m3) together with their scales, as float32.

An e4m3 byte has a sign, four bits of exponent (bias 7) and three of mantissa; 0x7F and 0xFF are NaN and nothing is infinite
(https://arxiv.org/abs/2209.05433). A weight is its value times a scale, which one tensor, one matrix of a stack, one row or one block
shares. Checkpoints keep scales beside the weights, under names of several styles; the scales of activations are not needed.
"""

import threading
from collections.abc import Callable, Iterable, Mapping

import numpy as np
from numpy.typing import NDArray

from quantize.errors import CorruptFile, MalformedFile
from quantize.source import TensorSource
from quantize.sources.quantization import Block
from quantize.sources.rows import FP8, Float32s, read_stored, tensor_source, widen
from quantize.sources.safetensors import StoredTensor

ReadBytes = Callable[[StoredTensor], bytes]

# (how the scale of a weight ends, how the weight ends)
_SCALES = (
    (".weight_scale_inv", ".weight"),
    (".weight_scale", ".weight"),
    (".qscale_weight", ".weight"),
    ("_scale_inv", ""),
)
_UNUSED = (".input_scale", "activation_scale", ".qscale_act", ".k_scale", ".v_scale", ".q_scale")

_E8M0_BIAS = 127


def weight_sources(
    stored: Mapping[str, StoredTensor], block: Block | None, read_bytes: ReadBytes
) -> dict[str, TensorSource]:
    """Make the weights of a checkpoint readable, in their order; scales become part of their weights.

    `block` is the (rows, columns) that share a scale, where the configuration declares it; `read_bytes` returns a small stored tensor,
    wherever its file is. Raises CorruptFile for a scale without an FP8 weight, for an FP8 weight without a scale, and for shapes that
    do not belong together; Unsupported for types that hold no weights.
    """
    scales: dict[str, StoredTensor] = {}
    for name, tensor in stored.items():
        if weight := _scaled_by(name, stored):
            if weight in scales:
                raise MalformedFile(
                    f"{tensor.path.name}: {weight!r} has two scales, {scales[weight].name!r} and {name!r}"
                )
            scales[weight] = tensor
    beside = {scale.name for scale in scales.values()}
    sources = {}
    for name, tensor in stored.items():
        if name in beside or name.endswith(_UNUSED):
            continue
        if tensor.dtype == FP8:
            if name not in scales:
                raise MalformedFile(f"{tensor.path.name} stores {name!r} as FP8 and lacks its scale")
            sources[name] = _fp8_source(tensor, _Scale(scales[name], tensor, block, read_bytes))
            continue
        sources[name] = tensor_source(tensor)
        if name in scales:
            raise MalformedFile(
                f"{tensor.path.name} stores {name!r} as {tensor.dtype}, although {scales[name].name!r} scales it"
            )
    return sources


def _scaled_by(name: str, stored: Iterable[str]) -> str | None:
    """Return the weight that a tensor is the scale of, None for a tensor of any other kind."""
    for ending, weight_ending in _SCALES:
        if not name.endswith(ending):
            continue
        weight = name.removesuffix(ending) + weight_ending
        if weight not in stored:
            raise CorruptFile(f"{name!r} scales {weight!r}, which is missing; download the missing files")
        return weight
    return None


def _fp8_source(stored: StoredTensor, scale: "_Scale") -> TensorSource:
    def convert(raw: NDArray[np.uint8], rows: Float32s, first: int) -> None:
        widen_fp8(raw, rows)
        scale.apply(rows, first)

    def read(start: int, stop: int) -> Float32s:
        rows = np.empty((stop - start, stored.shape[-1]), np.float32)
        read_stored(stored, np.dtype(np.uint8), start, rows, convert)
        return rows

    where = f"{stored.path.name}: {stored.name}"
    return TensorSource(stored.name, stored.shape, FP8, read, where, file=lambda _row: stored.path)


def widen_fp8(raw: NDArray[np.uint8], out: Float32s) -> None:
    """Convert e4m3 bytes to float32 in `out`, without their scale; NaN stays NaN."""
    np.take(_VALUES, raw, out=out, mode="wrap")  # no byte is out of range, and this mode does not look


def _values() -> Float32s:
    """Return the value of every byte."""
    magnitude = np.arange(128)
    exponent, mantissa = magnitude >> 3, magnitude & 7
    values = np.where(exponent == 0, mantissa / 8 * 2.0**-6, (1 + mantissa / 8) * 2.0 ** (exponent - 7))
    values[0x7F] = np.nan
    return np.array([*values, *-values], np.float32)


_VALUES = _values()


class _Scale:
    """The scales of one weight, read when its first row is; safe to use from several threads."""

    def __init__(
        self, scale: StoredTensor, weight: StoredTensor, block: Block | None, read_bytes: ReadBytes
    ) -> None:
        self._stored, self._read_bytes = scale, read_bytes
        self._where = f"{scale.path.name}: {scale.name}"
        self._lock = threading.Lock()
        self._values: Float32s | None = None
        if scale.dtype not in {"F32", "F16", "BF16", "F8_E8M0"}:
            raise MalformedFile(
                f"{self._where} has the type {scale.dtype}, but scales are floating-point numbers"
            )
        if not 2 <= len(weight.shape) <= 3:
            raise MalformedFile(
                f"{self._where} scales {weight.name!r}, which is neither a matrix nor a stack of them"
            )
        self._shape = self._check_shape(weight, block)
        self._n_rows = weight.shape[-2]
        self._block = tuple(
            1 if n == size else size if n == 1 else declared
            for n, size, declared in zip(self._shape[-2:], weight.shape[-2:], block or (1, 1), strict=True)
        )

    def _check_shape(self, weight: StoredTensor, block: Block | None) -> tuple[int, ...]:
        """Return the scale's shape with as many axes as the weight's; a scale of fewer axes belongs to the first ones."""
        given = self._stored.shape
        shape = given + (1,) * (len(weight.shape) - len(given))
        in_blocks = [*weight.shape[:-2], 1, 1]
        if block:
            in_blocks[-2:] = [-(-n // size) for n, size in zip(weight.shape[-2:], block, strict=True)]
        if len(shape) != len(weight.shape) or any(
            n not in (1, size, blocks) for n, size, blocks in zip(shape, weight.shape, in_blocks, strict=True)
        ):
            raise MalformedFile(
                f"{self._where} has the shape {list(given)}, which does not fit the weight's {list(weight.shape)}"
                f"{f' in blocks of {list(block)}' if block else ''}"
            )
        if [*shape[-2:]] == [*weight.shape[-2:]] != in_blocks[-2:] and 1 not in shape[-2:]:
            raise MalformedFile(
                f"{self._where} has the weight's own shape, {list(given)}: a scale belongs to a row, a block or a matrix"
            )
        return shape

    def apply(self, rows: Float32s, start: int) -> None:
        """Multiply rows [start, ...) of the weight by their scales, in place."""
        values = self._loaded()
        with np.errstate(over="ignore", invalid="ignore"):  # the encoder names a product that is not finite
            self._multiply(rows, start, values)

    def _multiply(self, rows: Float32s, start: int, values: Float32s) -> None:
        if values.size == 1:
            rows *= values.reshape(())
            return
        matrix, row = np.divmod(np.arange(start, start + len(rows)), self._n_rows)
        n_columns, (height, width) = rows.shape[1], self._block
        scales = values[matrix if len(values) > 1 else 0, row // height]
        if scales.shape[1] == 1:
            rows *= scales
        elif n_columns % width == 0:
            blocks = rows.reshape(len(rows), -1, width)
            blocks *= scales[:, :, None]
        else:
            rows *= np.repeat(scales, width, axis=1)[:, :n_columns]

    def _loaded(self) -> Float32s:
        with self._lock:
            if self._values is None:
                self._values = self._read()
            return self._values

    def _read(self) -> Float32s:
        """Return (matrices or 1, row blocks, column blocks)."""
        dtype = self._stored.dtype
        raw = self._read_bytes(self._stored)
        values: Float32s
        if dtype == "F8_E8M0":  # the exponent of a power of two; 255 is NaN
            exponents = np.frombuffer(raw, np.uint8).astype(np.int32)
            values = np.where(
                exponents == 255, np.nan, np.ldexp(np.float32(1), exponents - _E8M0_BIAS)
            ).astype(np.float32)
        else:
            stored = np.frombuffer(raw, {"F32": "<f4", "F16": "<f2", "BF16": "<u2"}[dtype])
            values = np.empty(stored.size, np.float32)
            widen(dtype, stored, values)
        if not np.isfinite(values).all():
            raise MalformedFile(f"{self._where} has a scale that is NaN or infinite")
        if (least := values.min(initial=0)) < 0:  # a block of nothing but zeros may have the scale 0
            raise MalformedFile(f"{self._where} has the scale {least:g}, which is negative")
        return values.reshape(-1, *self._shape[-2:])


__all__ = ["weight_sources", "widen_fp8"]
