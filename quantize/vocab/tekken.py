"""Convert tekken vocabularies (tekken.json): bytes with ranks, as in Mistral's models since Nemo.

The file gives each token's bytes (base64) and its rank. A GGUF wants GPT-2's printable stand-ins for bytes, and merges: of every token all
the ways to join it from two tokens, which is what merging by rank can do.
"""

import base64
import binascii
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from quantize.errors import CorruptFile, MalformedFile, Unsupported
from quantize.sources.folder import read_json_object
from quantize.vocab.pretokenizer import TEKKEN_PATTERN
from quantize.vocab.vocabulary import TokenType, Vocabulary, padding
from quantize.wording import counted, shown

MAX_TOKENS = 1 << 22
MAX_TOKEN_BYTES = 1 << 10  # every way to cut a token in two is looked at
MAX_BYTES = 1 << 23  # of all tokens; real files have about a million

# Files of version 7 and before leave their special tokens to the reader; these are the ones that mistral_common knows.
_UNLISTED = (
    *("<unk>", "<s>", "</s>", "[INST]", "[/INST]", "[AVAILABLE_TOOLS]", "[/AVAILABLE_TOOLS]"),
    *("[TOOL_RESULTS]", "[/TOOL_RESULTS]", "[TOOL_CALLS]", "[IMG]", "<pad>", "[IMG_BREAK]", "[IMG_END]"),
    *("[PREFIX]", "[MIDDLE]", "[SUFFIX]", "[SYSTEM_PROMPT]", "[/SYSTEM_PROMPT]", "[TOOL_CONTENT]"),
)


def tekken_vocabulary(path: Path, n_vocab: int | None) -> tuple[Vocabulary, str]:
    """Read tekken.json, one token for each of `n_vocab` embedding rows; the second value is its version ("v3").

    Raises Unsupported for a pattern that llama.cpp does not know, CorruptFile for a file that contradicts itself or the embedding.
    """
    file = read_json_object(path)
    config = file.get("config")
    if not isinstance(config, dict) or not isinstance(file.get("vocab"), list):
        raise MalformedFile(f"{path.name} has no config or no vocab")
    if config.get("pattern") != TEKKEN_PATTERN:
        raise Unsupported(
            f"{path.name} splits text by a pattern that llama.cpp does not support; mixcli cannot convert it"
        )
    n_special = _count(config, "default_num_special_tokens", path.name)
    n_tokens = _count(config, "default_vocab_size", path.name)
    if n_vocab is not None and n_tokens > n_vocab:
        raise CorruptFile(
            f"{path.name} has {counted(n_tokens, 'token')}, the embedding has {counted(n_vocab, 'row')}; they belong to different models"
        )
    if n_special > n_tokens:
        raise MalformedFile(
            f"{path.name} has {counted(n_special, 'special token')} among {n_tokens} in all, which is invalid"
        )
    special = _special_tokens(file.get("special_tokens"), n_special, path.name)
    ranked = _ranked(file["vocab"], n_tokens - n_special, path.name)
    tokens = [*special, *(printable(token).encode() for token in ranked)]
    types = [TokenType.CONTROL] * len(special) + [TokenType.NORMAL] * len(ranked)
    for index in range(len(tokens), n_vocab or 0):
        token, kind = padding(index)
        tokens.append(token)
        types.append(kind)
    vocabulary = Vocabulary(
        "gpt2", "tekken", tuple(tokens), tuple(types), (0.0,) * len(tokens), _merges(ranked)
    )
    return vocabulary, str(config.get("version"))[:40]


def printable(token: bytes) -> str:
    """Write bytes in GPT-2's stand-ins: printable Latin-1 as it is, the rest from U+0100 on in the order of their values."""
    return token.decode("latin-1").translate(_STAND_INS)


def _stand_ins() -> dict[int, int]:
    plain = {*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)}
    rest = [byte for byte in range(256) if byte not in plain]
    return {byte: 256 + i for i, byte in enumerate(rest)}


_STAND_INS = _stand_ins()


def _special_tokens(listed: Any, n_special: int, where: str) -> list[bytes]:
    tokens = dict(enumerate(_UNLISTED))
    if listed is not None:
        tokens = {}
        for entry in listed if isinstance(listed, list) else [None]:
            rank, text = (
                (entry.get("rank"), entry.get("token_str")) if isinstance(entry, dict) else (None, None)
            )
            if (
                not isinstance(rank, int)
                or isinstance(rank, bool)
                or not 0 <= rank < n_special
                or not isinstance(text, str)
                or rank in tokens
            ):
                raise MalformedFile(f"{where} has the invalid special token {shown(entry, 80)}")
            tokens[rank] = text
    return [tokens.get(i, f"<SPECIAL_{i}>").encode() for i in range(n_special)]


def _ranked(entries: Sequence[Any], n: int, where: str) -> list[bytes]:
    if n < 256 or len(entries) < n:
        raise MalformedFile(f"{where} declares {counted(n, 'token')} but lists {len(entries)}")
    try:
        tokens = [base64.b64decode(entry["token_bytes"], validate=True) for entry in entries[:n]]
        in_order = all(
            isinstance(entry["rank"], int) and entry["rank"] == rank for rank, entry in enumerate(entries[:n])
        )
    except (TypeError, KeyError, ValueError, binascii.Error):
        raise MalformedFile(f"{where} has a token without rank or bytes") from None
    longest = max(map(len, tokens))
    if longest > MAX_TOKEN_BYTES or sum(map(len, tokens)) > MAX_BYTES:
        raise MalformedFile(f"{where} has a token of {longest:,} bytes; the limit is {MAX_TOKEN_BYTES:,}")
    if not in_order or len(set(tokens)) < n or any(len(token) != 1 for token in tokens[:256]):
        raise MalformedFile(f"{where} has ranks out of order or a token twice")
    return tokens


def _merges(ranked: Sequence[bytes]) -> tuple[str, ...]:
    rank_of: Mapping[bytes, int] = {token: rank for rank, token in enumerate(ranked)}
    written = [printable(token) for token in ranked]
    lines: list[str] = []
    for token in ranked[256:]:
        ways = [
            (left, right)
            for cut in range(1, len(token))
            if (left := rank_of.get(token[:cut])) is not None
            and (right := rank_of.get(token[cut:])) is not None
        ]
        lines += [f"{written[left]} {written[right]}" for left, right in sorted(ways)]
    return tuple(lines)


def _count(config: Mapping[str, Any], key: str, where: str) -> int:
    value = config.get(key)
    if not isinstance(value, int) or isinstance(value, bool) or not 0 < value <= MAX_TOKENS:
        raise MalformedFile(f"{where} has {key} = {shown(value)}")
    return value
