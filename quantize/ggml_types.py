"""The type numbers of GGUF files: value types of metadata, and tensor types with their block sizes.

Names and numbers are those of ggml.h and gguf.h (and of the gguf package, which needs numpy and half a second to import; reading
a header should need neither). A test holds this table to the library's own answers.
"""

from enum import IntEnum


class GGUFValueType(IntEnum):
    """The type of one metadata value on disk."""

    UINT8 = 0
    INT8 = 1
    UINT16 = 2
    INT16 = 3
    UINT32 = 4
    INT32 = 5
    FLOAT32 = 6
    BOOL = 7
    STRING = 8
    ARRAY = 9
    UINT64 = 10
    INT64 = 11
    FLOAT64 = 12


class GGMLQuantizationType(IntEnum):
    """The type of one tensor's data; the gaps are types that were removed from the format."""

    F32 = 0
    F16 = 1
    Q4_0 = 2
    Q4_1 = 3
    Q5_0 = 6
    Q5_1 = 7
    Q8_0 = 8
    Q8_1 = 9
    Q2_K = 10
    Q3_K = 11
    Q4_K = 12
    Q5_K = 13
    Q6_K = 14
    Q8_K = 15
    IQ2_XXS = 16
    IQ2_XS = 17
    IQ3_XXS = 18
    IQ1_S = 19
    IQ4_NL = 20
    IQ3_S = 21
    IQ2_S = 22
    IQ4_XS = 23
    I8 = 24
    I16 = 25
    I32 = 26
    I64 = 27
    F64 = 28
    IQ1_M = 29
    BF16 = 30
    TQ1_0 = 34
    TQ2_0 = 35
    MXFP4 = 39
    NVFP4 = 40
    Q1_0 = 41
    Q2_0 = 42


_T = GGMLQuantizationType

# type -> (weights in a block, bytes of a block)
BLOCK: dict[GGMLQuantizationType, tuple[int, int]] = {
    _T.F32: (1, 4),
    _T.F16: (1, 2),
    _T.Q4_0: (32, 18),
    _T.Q4_1: (32, 20),
    _T.Q5_0: (32, 22),
    _T.Q5_1: (32, 24),
    _T.Q8_0: (32, 34),
    _T.Q8_1: (32, 36),
    _T.Q2_K: (256, 84),
    _T.Q3_K: (256, 110),
    _T.Q4_K: (256, 144),
    _T.Q5_K: (256, 176),
    _T.Q6_K: (256, 210),
    _T.Q8_K: (256, 292),
    _T.IQ2_XXS: (256, 66),
    _T.IQ2_XS: (256, 74),
    _T.IQ3_XXS: (256, 98),
    _T.IQ1_S: (256, 50),
    _T.IQ4_NL: (32, 18),
    _T.IQ3_S: (256, 110),
    _T.IQ2_S: (256, 82),
    _T.IQ4_XS: (256, 136),
    _T.I8: (1, 1),
    _T.I16: (1, 2),
    _T.I32: (1, 4),
    _T.I64: (1, 8),
    _T.F64: (1, 8),
    _T.IQ1_M: (256, 56),
    _T.BF16: (1, 2),
    _T.TQ1_0: (256, 54),
    _T.TQ2_0: (256, 66),
    _T.MXFP4: (32, 17),
    _T.NVFP4: (64, 36),
    _T.Q1_0: (128, 18),
    _T.Q2_0: (64, 18),
}

#: Types that hold plain numbers; every other type packs blocks of weights.
PLAIN = frozenset({_T.F32, _T.F16, _T.BF16, _T.F64, _T.I8, _T.I16, _T.I32, _T.I64})


def row_bytes(type_: GGMLQuantizationType, n_cols: int) -> int:
    """Return the bytes of one row of `n_cols` weights; ValueError when the row is not a whole number of blocks."""
    block, size = BLOCK[type_]
    if n_cols % block:
        raise ValueError(
            f"{n_cols} columns are not a multiple of the {block} weights in a block of {type_.name}"
        )
    return n_cols // block * size


def bits(type_: GGMLQuantizationType) -> float:
    """Return the bits of a weight."""
    n_weights, n_bytes = BLOCK[type_]
    return 8 * n_bytes / n_weights


__all__ = ["BLOCK", "PLAIN", "GGMLQuantizationType", "GGUFValueType", "bits", "row_bytes"]
