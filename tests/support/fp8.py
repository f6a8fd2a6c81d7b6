"""Checkpoints in FP8 (e4m3): random bytes with scales of every kind, and what they mean, by the definition of the format."""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tests.support.checkpoints import Arrays, bf16_values

_SCALED = re.compile(
    r"(?:.*\.)?layers\.\d+\.(?:.*(?:proj|w[123]|w[qkvo](?:_[ab])?(?:_with_mqa)?)\.weight|.*experts\.\w+_proj)"
)


def e4m3_value(byte: int) -> float:
    """The value of one byte: a sign, four bits of exponent, three of mantissa, no infinity."""
    sign, exponent, mantissa = -1.0 if byte & 0x80 else 1.0, byte >> 3 & 15, byte & 7
    if (exponent, mantissa) == (15, 7):
        return float("nan")
    return sign * (mantissa * 2.0**-9 if exponent == 0 else (1 + mantissa / 8) * 2.0 ** (exponent - 7))


E4M3 = np.array([e4m3_value(byte) for byte in range(256)], np.float32)


@dataclass(frozen=True)
class Style:
    """How a checkpoint keeps scales: what their names end with, those of activations, and what shares one.

    `shares` is "tensor", "matrix" (of a stack), "channel" or (rows, columns) of a block.
    """

    shares: str | tuple[int, int] = "tensor"
    scale: str = "weight_scale_inv"
    activation: str | None = "activation_scale"

    def apply(self, arrays: Arrays) -> dict[str, NDArray[Any]]:
        """Put random FP8 weights and their scales in the place of the projections of the layers."""
        result: dict[str, NDArray[Any]] = {}
        for seed, (name, array) in enumerate(arrays.items()):
            if not _SCALED.fullmatch(name):
                result[name] = array
                continue
            result[name] = random_bytes(array.shape, seed)
            base = name.removesuffix("weight")
            # the tensors of a stack have no ".weight", so their scales are called ..._scale_inv
            named = base + self.scale if base != name else f"{name}_{self.scale.removeprefix('weight_')}"
            result[named] = np.abs(bf16_values(self.shape(array.shape), seed + 500)) * np.float32(2**-6)
            if self.activation:
                result[base + self.activation if base != name else f"{name}_{self.activation}"] = np.ones(
                    (), np.float32
                )
        return result

    def shape(self, weight: tuple[int, ...]) -> tuple[int, ...]:
        """The shape of a weight's scales."""
        if isinstance(self.shares, tuple):
            return (*weight[:-2], *(-(-n // size) for n, size in zip(weight[-2:], self.shares, strict=True)))
        return {"tensor": (), "matrix": weight[:-2], "channel": (*weight[:-1], 1)}[self.shares]


def random_bytes(shape: tuple[int, ...], seed: int) -> NDArray[np.uint8]:
    """Random e4m3 numbers, every one but NaN."""
    n = int(np.prod(shape))
    raw = np.random.PCG64(seed + 77).random_raw(n // 8 + 1).view(np.uint8)[:n]
    return np.where(raw & 0x7F == 0x7F, raw - 1, raw).astype(np.uint8).reshape(shape)


def dequantized(
    weight: NDArray[np.uint8], scale: NDArray[np.float32], block: tuple[int, int] = (1, 1)
) -> NDArray[np.float32]:
    """What FP8 weights and their scales mean, element by element."""
    scale = scale.reshape(scale.shape + (1,) * (weight.ndim - scale.ndim))
    for axis, size in zip((-2, -1), block, strict=True):
        if scale.shape[axis] not in (1, weight.shape[axis]):
            scale = np.take(np.repeat(scale, size, axis=axis), range(weight.shape[axis]), axis=axis)
    return E4M3[weight] * scale


def plain(arrays: Mapping[str, NDArray[Any]], style: Style) -> dict[str, NDArray[np.float32]]:
    """The same checkpoint without FP8: each weight as the float32 numbers that it stands for."""
    block = style.shares if isinstance(style.shares, tuple) else (1, 1)
    result = {}
    for name, array in arrays.items():
        if array.dtype == np.uint8:
            base = name.removesuffix("weight")
            scale = base + style.scale if base != name else f"{name}_{style.scale.removeprefix('weight_')}"
            result[name] = dequantized(array, arrays[scale], block)
        elif "scale" not in name:
            result[name] = array
    return result
