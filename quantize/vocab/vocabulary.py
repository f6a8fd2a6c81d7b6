"""A vocabulary in llama.cpp's terms: tokens, types, and scores or merges."""

from dataclasses import dataclass
from enum import IntEnum

from quantize.source import Value, f32s, i32s, text, texts


class TokenType(IntEnum):
    """What a token is to the tokenizer of llama.cpp; the numbers are the same in SentencePiece models and in GGUF files."""

    NORMAL = 1
    UNKNOWN = 2
    CONTROL = 3
    USER_DEFINED = 4
    UNUSED = 5
    BYTE = 6


@dataclass(frozen=True)
class Vocabulary:
    """A token per row of the embedding. SentencePiece has `scores`, byte-pair encodings have `merges` ("left right")."""

    model: str
    pre: str
    tokens: tuple[bytes, ...]
    types: tuple[TokenType, ...]
    scores: tuple[float, ...] | None = None
    merges: tuple[str, ...] | None = None

    def metadata(self) -> dict[str, Value]:
        """Return the keys of the vocabulary itself, in the order of llama.cpp's converter."""
        keys = {
            "tokenizer.ggml.model": text(self.model),
            "tokenizer.ggml.pre": text(self.pre),
            "tokenizer.ggml.tokens": texts(self.tokens),
        }
        if self.scores is not None:
            keys["tokenizer.ggml.scores"] = f32s(self.scores)
        keys["tokenizer.ggml.token_type"] = i32s([int(kind) for kind in self.types])
        if self.merges:
            keys["tokenizer.ggml.merges"] = texts(self.merges)
        return keys


def padding(index: int) -> tuple[bytes, TokenType]:
    """Return the token of an embedding row that the vocabulary does not name."""
    return f"[PAD{index}]".encode(), TokenType.UNUSED


def looks_special(token: str) -> bool:
    """Return whether an added token is a marker, although its file may not call it special (ChatML fine-tunes)."""
    return token == "<pad>" or (token.startswith("<|") and token.endswith("|>"))
