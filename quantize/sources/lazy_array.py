"""Arrays of GGUF metadata, such as a vocabulary, kept as bytes and decoded on access."""

import struct
import sys
from array import array
from collections.abc import Iterator, Sequence
from functools import cached_property
from typing import Any, overload

from quantize.ggml_types import GGUFValueType
from quantize.wording import counted

U32 = struct.Struct("<I")
U64 = struct.Struct("<Q")

# value type -> (layout of one value, type code of the array module)
NUMBERS: dict[int, tuple[struct.Struct, str]] = {
    GGUFValueType.UINT8: (struct.Struct("<B"), "B"),
    GGUFValueType.INT8: (struct.Struct("<b"), "b"),
    GGUFValueType.UINT16: (struct.Struct("<H"), "H"),
    GGUFValueType.INT16: (struct.Struct("<h"), "h"),
    GGUFValueType.UINT32: (U32, "I"),
    GGUFValueType.INT32: (struct.Struct("<i"), "i"),
    GGUFValueType.FLOAT32: (struct.Struct("<f"), "f"),
    GGUFValueType.BOOL: (struct.Struct("<?"), "B"),
    GGUFValueType.UINT64: (U64, "Q"),
    GGUFValueType.INT64: (struct.Struct("<q"), "q"),
    GGUFValueType.FLOAT64: (struct.Struct("<d"), "d"),
}


class LazyArray(Sequence[Any]):
    """The elements of one metadata array, kept as in the file and decoded at the first use.

    `raw` is the elements' bytes: for strings each with its 64-bit length in front. Text that is not a valid UTF-8 is decoded
    with surrogateescape, so that encoding it the same way returns the file's bytes back.
    """

    def __init__(self, item: GGUFValueType, length: int, raw: bytes) -> None:
        self.item = item
        self.raw = raw
        self._length = length

    @cached_property
    def _decoded(self) -> Sequence[Any]:
        if self.item == GGUFValueType.STRING:
            return list(self._strings())
        values = array(NUMBERS[self.item][1])
        values.frombytes(self.raw)
        if sys.byteorder == "big":
            values.byteswap()
        return [value != 0 for value in values] if self.item == GGUFValueType.BOOL else values

    def _strings(self) -> Iterator[str]:
        raw, position, unpack = self.raw, 0, U64.unpack_from
        for _ in range(self._length):
            start = position + 8
            position = start + unpack(raw, position)[0]
            yield raw[start:position].decode("utf-8", "surrogateescape")

    def __len__(self) -> int:
        return self._length

    @overload
    def __getitem__(self, index: int) -> Any: ...
    @overload
    def __getitem__(self, index: slice) -> Sequence[Any]: ...
    def __getitem__(self, index: int | slice) -> Any:
        return self._decoded[index]

    def __iter__(self) -> Iterator[Any]:
        return iter(self._decoded)

    def __eq__(self, other: object) -> bool:
        if isinstance(other, LazyArray):
            return self.item == other.item and self.raw == other.raw
        return (
            isinstance(other, Sequence) and not isinstance(other, str | bytes) and list(self) == list(other)
        )

    __hash__ = None  # type: ignore[assignment]  # a sequence that may equal a list

    def __repr__(self) -> str:
        what = "text" if self.item == GGUFValueType.STRING else "number"
        return f"a list of {counted(self._length, what)}"


__all__ = ["NUMBERS", "U32", "U64", "LazyArray"]
