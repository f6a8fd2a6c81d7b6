"""The types of tokens; the numbers are the same in SentencePiece models and in GGUF files."""

from enum import IntEnum


class TokenType(IntEnum):
    """What a token is to the tokenizer of llama.cpp."""

    NORMAL = 1
    UNKNOWN = 2
    CONTROL = 3
    USER_DEFINED = 4
    UNUSED = 5
    BYTE = 6
