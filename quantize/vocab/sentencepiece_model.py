"""A small reader of SentencePiece models (tokenizer.model): pieces, scores and types.

The file is a protocol buffer (sentencepiece_model.proto): field 1 repeats a piece {1: text, 2: score as float32, 3: type}, field
2 is the trainer's specification with the model type in its field 3. Reading that much takes no dependency.
"""

import struct
from collections.abc import Iterator
from math import isfinite
from pathlib import Path
from typing import NamedTuple

from quantize.errors import MalformedFile, Unsupported
from quantize.sources.input_file import read_file
from quantize.vocab.vocabulary import TokenType

MAX_BYTES = 1 << 26
MAX_PIECES = 1 << 20  # the largest vocabularies have 262,144 tokens
_BPE = 2  # TrainerSpec.ModelType
_SCORE = struct.Struct("<f")


class Piece(NamedTuple):
    """One entry of the vocabulary; its id is its place in the file."""

    text: bytes
    score: float
    type: TokenType


def read_sentencepiece(path: Path) -> list[Piece]:
    """Read all pieces of a byte-pair SentencePiece model; Unsupported for a unigram, word or character model."""
    raw = read_file(path, MAX_BYTES)
    pieces: list[Piece] = []
    try:
        model_type = 1  # the default, unigram
        for field, value in _fields(raw):
            if field == 1:
                if len(pieces) == MAX_PIECES:
                    raise ValueError(f"more than {MAX_PIECES:,} pieces")
                pieces.append(_piece(_bytes(value)))
            elif field == 2:
                model_type = next(
                    (v for f, v in _fields(_bytes(value)) if f == 3 and isinstance(v, int)), model_type
                )
    except (ValueError, struct.error) as error:
        raise MalformedFile(f"{path.name} is not a SentencePiece model ({error})") from None
    if not pieces:
        raise MalformedFile(f"{path.name} is not a SentencePiece model (it has no pieces)")
    if model_type != _BPE:
        raise Unsupported(
            f"{path.name} is a SentencePiece model of type {model_type}, but only the byte-pair type is supported"
        )
    return pieces


def _piece(raw: bytes) -> Piece:
    text, score, kind = b"", 0.0, TokenType.NORMAL
    # a short text, a score and no type: nearly all of tens of thousands, of which no field has to be looked for
    if len(raw) > 6 and raw[0] == 0x0A and raw[1] == len(raw) - 7 < 0x80 and raw[-5] == 0x15:
        text, (score,) = raw[2:-5], _SCORE.unpack_from(raw, len(raw) - 4)
        if isfinite(score):
            text.decode("utf-8")
            return Piece(text, score, kind)
    for field, value in _fields(raw):
        if field == 1:
            text = _bytes(value)
        elif field == 2:
            (score,) = _SCORE.unpack(_bytes(value))
            if not isfinite(score):
                raise ValueError(f"a score is {score}")
        elif field == 3 and isinstance(value, int):
            kind = TokenType(value)
    text.decode("utf-8")
    return Piece(text, score, kind)


def _bytes(value: int | bytes) -> bytes:
    if isinstance(value, int):
        raise ValueError("a number in place of text")
    return value


def _fields(raw: bytes) -> Iterator[tuple[int, int | bytes]]:
    """Walk the fields of one message: varints as numbers, everything else as its bytes."""
    at = 0
    while at < len(raw):
        key, at = _varint(raw, at)
        wire = key & 7
        if wire == 0:
            number, at = _varint(raw, at)
            yield key >> 3, number
            continue
        if wire == 2:
            length, at = _varint(raw, at)
        elif wire in (1, 5):
            length = 8 if wire == 1 else 4
        else:
            raise ValueError(f"wire type {wire} at byte {at}")
        if at + length > len(raw):
            raise ValueError(f"a field at byte {at} is truncated")
        yield key >> 3, raw[at : at + length]
        at += length


def _varint(raw: bytes, at: int) -> tuple[int, int]:
    if at < len(raw) and raw[at] < 0x80:
        return raw[at], at + 1
    number = 0
    for shift in range(0, 70, 7):
        if at >= len(raw):
            raise ValueError("the file is truncated")
        byte = raw[at]
        at += 1
        number |= (byte & 0x7F) << shift
        if byte < 0x80:
            return number, at
    raise ValueError(f"the number at byte {at} is too long")
