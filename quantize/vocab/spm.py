"""Convert SentencePiece vocabularies from tokenizer.model, or from a tokenizer.json made from one."""

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from quantize.errors import CorruptFile, MalformedFile
from quantize.sources.folder import read_json_object_if_there
from quantize.vocab.bpe import MAX_TOKENS, added_tokens, bpe_model, merge_lines, token_ids
from quantize.vocab.sentencepiece_model import Piece, read_sentencepiece
from quantize.vocab.vocabulary import TokenType, Vocabulary, looks_special, padding
from quantize.wording import counted, shown

_ID = re.compile(r"[0-9]{1,7}")
_BYTE = re.compile(r"<0x[0-9A-F]{2}>")
_PADDED, _ADDED = -10000.0, -1000.0  # scores by which llama.cpp's converter tells them apart


def spm_vocabulary(path: Path, n_vocab: int | None) -> Vocabulary:
    """Read tokenizer.model with the added tokens that lie beside it, one token for each of `n_vocab` embedding rows."""
    pieces = read_sentencepiece(path)
    # A user-defined piece is an ordinary one to the converter: only added tokens are cut out of a text before the rest.
    base = [
        Piece(p.text, p.score, TokenType.NORMAL if p.type is TokenType.USER_DEFINED else p.type)
        for p in pieces
    ]
    return _complete(base, _added_beside(path.parent), n_vocab, path.name)


def spm_vocabulary_from_json(tokenizer: Mapping[str, Any], n_vocab: int | None, where: str) -> Vocabulary:
    """Read a tokenizer.json with byte fallback, which is a SentencePiece model in other clothes.

    SentencePiece merges by score, the best first; a merge's place in the list is that order, so the score of a piece is
    minus the place of the first merge that makes it.
    """
    model = bpe_model(tokenizer, where)
    by_id = token_ids(model, where)
    scores: dict[str, float] = {}
    for rank, line in enumerate(merge_lines(model, where)):
        scores.setdefault(line.replace(" ", "", 1), -float(rank))
    if n_vocab is not None and max(by_id) >= n_vocab:  # before so many pieces are made
        raise CorruptFile(
            f"{where} has {counted(1 + max(by_id), 'token')}, the embedding has {counted(n_vocab, 'row')}; they belong to different models"
        )
    unknown = model.get("unk_token")
    pieces = []
    for index in range(1 + max(by_id)):
        token = by_id.get(index)
        if token is None:
            text, kind = padding(index)
            pieces.append(Piece(text, _PADDED, kind))
            continue
        kind = TokenType.BYTE if _BYTE.fullmatch(token) else TokenType.NORMAL
        kind = TokenType.UNKNOWN if token == unknown else kind
        pieces.append(Piece(token.encode(), scores.get(token, 0.0), kind))
    return _complete(pieces, added_tokens(tokenizer, where), n_vocab, where)


def _complete(
    pieces: list[Piece], added: Mapping[int, tuple[str, bool]], n_vocab: int | None, where: str
) -> Vocabulary:
    n_vocab = n_vocab or max((len(pieces), *(index + 1 for index in added)))
    if len(pieces) > n_vocab:
        raise CorruptFile(
            f"{where} has {counted(len(pieces), 'token')}, the embedding has {counted(n_vocab, 'row')}; they belong to different models"
        )
    table = [*pieces, *(Piece(padding(i)[0], _PADDED, TokenType.UNUSED) for i in range(len(pieces), n_vocab))]
    for index, (token, flagged) in added.items():
        if index >= n_vocab:  # a token that the model has no row for can never come out of it
            continue
        special = flagged or looks_special(token)
        text = token if special else token.replace("▁", " ")
        table[index] = Piece(text.encode(), _ADDED, TokenType.CONTROL if special else TokenType.USER_DEFINED)
    return Vocabulary(
        "llama",
        "default",
        tuple(piece.text for piece in table),
        tuple(piece.type for piece in table),
        scores=tuple(piece.score for piece in table),
    )


def _added_beside(folder: Path) -> dict[int, tuple[str, bool]]:
    """Return the added tokens of added_tokens.json, then of tokenizer_config.json, which also knows the special ones."""
    found: dict[int, tuple[str, bool]] = {}
    for token, index in read_json_object_if_there(folder / "added_tokens.json").items():
        if not isinstance(index, int) or isinstance(index, bool) or not 0 <= index < MAX_TOKENS:
            raise MalformedFile(f"added_tokens.json has the invalid id {shown(index)} for {shown(token, 80)}")
        found[index] = token, False
    decoder = read_json_object_if_there(folder / "tokenizer_config.json").get("added_tokens_decoder") or {}
    if not isinstance(decoder, dict):
        raise MalformedFile("tokenizer_config.json has an added_tokens_decoder that is not an object")
    for key, entry in decoder.items():
        if not _ID.fullmatch(key) or not isinstance(entry, dict) or not isinstance(entry.get("content"), str):
            raise MalformedFile(
                f"tokenizer_config.json has added token {shown(key, 80)} in an unknown format"
            )
        found[int(key)] = entry["content"], bool(entry.get("special"))
    return found
