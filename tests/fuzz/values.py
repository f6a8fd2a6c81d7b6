"""Values that programs trip over."""

import struct
from math import isfinite

from hypothesis import strategies as st
from hypothesis.strategies import SearchStrategy

from quantize.ggml_types import GGUFValueType as Kind
from quantize.source import Value

INTEGERS = [
    0, 1, 2, 3, 4, 5, 7, 8, 31, 32, 33, 63, 64, 127, 128, 255, 256, 257, 511, 512, 513, 1023, 1024, 1025, 4096, 65535, 65536,
    2**20, 2**24, 2**28, 2**31 - 1, 2**31, 2**32 - 1, 2**32, 2**53, 2**63 - 1, 2**63, 2**64 - 1, -1, -2, -128, -(2**31), -(2**63),
]  # fmt: skip
FLOATS = [
    0.0, -0.0, 1.0, -1.0, 0.5, 1e-5, 1e-30, 1e-45, 1e30, 3.4e38, 1e308, -1e308, float("inf"), float("-inf"), float("nan"), 1e6, 32.0,
]  # fmt: skip
TEXTS = [
    "", " ", "a", "0", "-1", "1.5", "nan", "none", "null", "true", "llama", "gpt2", "default", "none", "\n", "\t", "\x00", "\x1b[31m",
    "a\x00b", "é", "𝔘", "\u202e", "\ufeff", "../x", "/etc/passwd", "~", "C:\\x", "%s%n", "{0}", "{{ x }}", "{% for %}", "[bold]",
    "</s>", "<|im_start|>", "[INST]", "a" * 300, "x" * 5000, '"', "'", "\\", ",", ";", "id,text\n", "\r", "\r\n", "\u2028",
]  # fmt: skip

RANGES = {
    Kind.UINT8: (0, 2**8 - 1),
    Kind.INT8: (-(2**7), 2**7 - 1),
    Kind.UINT16: (0, 2**16 - 1),
    Kind.INT16: (-(2**15), 2**15 - 1),
    Kind.UINT32: (0, 2**32 - 1),
    Kind.INT32: (-(2**31), 2**31 - 1),
    Kind.UINT64: (0, 2**64 - 1),
    Kind.INT64: (-(2**63), 2**63 - 1),
}


def integers(low: int, high: int) -> SearchStrategy[int]:
    """Integers of a range, the awkward ones first."""
    return st.sampled_from([one for one in INTEGERS if low <= one <= high]) | st.integers(low, high)


def floats32() -> SearchStrategy[float]:
    """Numbers that a float32 holds."""
    held = [one for one in FLOATS if not isfinite(one) or abs(one) < 3.5e38]
    return st.sampled_from([struct.unpack("<f", struct.pack("<f", one))[0] for one in held])


def scalar(kind: Kind) -> SearchStrategy[object]:
    """One value of a GGUF type."""
    if kind in RANGES:
        return integers(*RANGES[kind])
    if kind == Kind.BOOL:
        return st.booleans()
    if kind == Kind.STRING:
        return st.sampled_from(TEXTS) | st.binary(max_size=8)
    return floats32() if kind == Kind.FLOAT32 else st.sampled_from(FLOATS)


SCALARS = [kind for kind in Kind if kind != Kind.ARRAY]


@st.composite
def gguf_values(draw: st.DrawFn) -> Value:
    """Any metadata value: a number, a text, or a list of either, of any type on disk."""
    kind = draw(st.sampled_from(SCALARS))
    if draw(st.integers(0, 3)):
        return Value(kind, draw(scalar(kind)))
    n = draw(st.sampled_from([0, 1, 2, 3, 5, 300]))
    if n > 5:
        return Value(Kind.ARRAY, [draw(scalar(kind))] * n, kind)
    return Value(Kind.ARRAY, draw(st.lists(scalar(kind), min_size=n, max_size=n)), kind)


def json_values() -> SearchStrategy[object]:
    """Any JSON value, shallow, with what programs trip over."""
    leaves = (
        st.none()
        | st.booleans()
        | st.sampled_from(INTEGERS)
        | st.sampled_from([*FLOATS, 10**400])
        | st.sampled_from(TEXTS)
        | st.text(max_size=4)
    )
    return st.recursive(
        leaves,
        lambda inner: (
            st.lists(inner, max_size=3)
            | st.dictionaries(st.sampled_from(TEXTS[:14]) | st.text(max_size=3), inner, max_size=3)
        ),
        max_leaves=6,
    )


def edits() -> SearchStrategy[list[tuple[float, int]]]:
    """Edits of a file's bytes: (place as a share of its length, new byte; -1 cuts the file there)."""
    return st.lists(
        st.tuples(st.floats(0, 0.999), st.integers(-1, 255) | st.sampled_from([0, 255, 127, 128])), max_size=4
    )


def edited(data: bytes, changes: list[tuple[float, int]]) -> bytes:
    """Carry edits out."""
    result = bytearray(data)
    for place, byte in changes:
        if not result:
            break
        at = int(place * len(result))
        if byte < 0:
            del result[at:]
        else:
            result[at] = byte
    return bytes(result)
