"""Convert byte-level BPE vocabularies from tokenizer.json, and back from a GGUF."""

from collections.abc import Mapping, Sequence
from typing import Any

from quantize.errors import CorruptFile, MalformedFile, Unsupported
from quantize.vocab.pretokenizer import pretokenizer_json, pretokenizer_name
from quantize.vocab.vocabulary import TokenType, Vocabulary, looks_special, padding
from quantize.wording import counted, shown

MAX_TOKENS = 1 << 22  # ids; the largest vocabularies have 262,144


def bpe_vocabulary(tokenizer: Mapping[str, Any], n_vocab: int | None, where: str) -> Vocabulary:
    """Read a byte-level BPE vocabulary, one token for each of `n_vocab` embedding rows (None: all tokens)."""
    model = bpe_model(tokenizer, where)
    pre = pretokenizer_name(tokenizer.get("pre_tokenizer"), where)
    by_id = token_ids(model, where)
    added = added_tokens(tokenizer, where)
    n_tokens = 1 + max((*by_id, *added))
    if n_vocab is not None and n_tokens > n_vocab:
        raise CorruptFile(
            f"{where} has {counted(n_tokens, 'token')}, the embedding has {counted(n_vocab, 'row')}; they belong to different models"
        )
    tokens, types = [], []
    for index in range(n_vocab or n_tokens):
        if index in added:
            token, special = added[index]
            special = special or looks_special(token)
            tokens.append((token if special else token.replace("▁", " ")).encode())
            types.append(TokenType.CONTROL if special else TokenType.USER_DEFINED)
        elif index in by_id:
            tokens.append(by_id[index].encode())
            types.append(TokenType.NORMAL)
        else:
            token_bytes, kind = padding(index)
            tokens.append(token_bytes)
            types.append(kind)
    return Vocabulary("gpt2", pre, tuple(tokens), tuple(types), merges=tuple(merge_lines(model, where)))


def bpe_model(tokenizer: Mapping[str, Any], where: str) -> Mapping[str, Any]:
    """Return the `model` of a tokenizer.json; Unsupported when it is not BPE."""
    model = tokenizer.get("model")
    if not isinstance(model, dict):
        raise MalformedFile(f"{where} has no model")
    kind = model.get("type", "BPE" if "merges" in model else None)
    if kind != "BPE":
        raise Unsupported(
            f"{where} holds a {shown(kind)[1:-1]} tokenizer; mixcli supports BPE and SentencePiece"
        )
    return model


def token_ids(model: Mapping[str, Any], where: str) -> dict[int, str]:
    """Turn the vocabulary around: id -> token."""
    vocab = model.get("vocab")
    if not isinstance(vocab, dict) or not vocab:
        raise MalformedFile(f"{where} has no vocabulary")
    by_id: dict[int, str] = {}
    for token, index in vocab.items():
        if not _is_id(index) or index in by_id:
            raise MalformedFile(
                f"{where} has the id {shown(index)} for token {shown(token, 80)}, which is duplicate or invalid"
            )
        by_id[index] = token
    return by_id


def added_tokens(tokenizer: Mapping[str, Any], where: str) -> dict[int, tuple[str, bool]]:
    """Return the tokens that are found before anything else: id -> (text, special)."""
    entries = tokenizer.get("added_tokens") or []
    if not isinstance(entries, list):
        raise MalformedFile(f"{where} has added_tokens that are not a list")
    found: dict[int, tuple[str, bool]] = {}
    for entry in entries:
        if (
            not isinstance(entry, dict)
            or not isinstance(entry.get("content"), str)
            or not _is_id(entry.get("id"))
        ):
            raise MalformedFile(f"{where} has an added token without text or id")
        found[entry["id"]] = entry["content"], bool(entry.get("special"))
    return found


def merge_lines(model: Mapping[str, Any], where: str) -> list[str]:
    """Return the merges as "left right"; a space within a part is written as its byte-level stand-in (Ġ)."""
    merges = model.get("merges")
    if not isinstance(merges, list):
        raise MalformedFile(f"{where} has no merges")
    if all(isinstance(merge, str) for merge in merges):
        return merges
    if not all(
        isinstance(merge, list) and len(merge) == 2 and all(isinstance(p, str) for p in merge)
        for merge in merges
    ):
        raise MalformedFile(f"{where} has merges in an unknown format")
    return [" ".join(part.replace(" ", "Ġ") for part in merge) for merge in merges]


def tokenizer_json(
    tokens: Sequence[str], types: Sequence[int], merges: Sequence[str], pre: str, bos: str | None, where: str
) -> dict[str, Any]:
    """Rebuild a tokenizer.json from the vocabulary of a GGUF file; `bos` is a token that starts every text."""
    if len(set(tokens)) < len(tokens):
        raise MalformedFile(f"{where} has a token twice in its vocabulary")
    marked = {TokenType.CONTROL: True, TokenType.USER_DEFINED: False}
    added = [
        {
            "id": index,
            "content": token,
            "single_word": False,
            "lstrip": False,
            "rstrip": False,
            "normalized": False,
            "special": marked[TokenType(kind)],
        }
        for index, (token, kind) in enumerate(zip(tokens, types, strict=True))
        if kind in marked
    ]
    template = None
    if bos is not None:
        first = {"SpecialToken": {"id": bos, "type_id": 0}}
        sequence = [{"Sequence": {"id": "A", "type_id": 0}}, {"Sequence": {"id": "B", "type_id": 1}}]
        template = {
            "type": "TemplateProcessing",
            "single": [first, sequence[0]],
            "pair": [first, *sequence],
            "special_tokens": {bos: {"id": bos, "ids": [tokens.index(bos)], "tokens": [bos]}},
        }
    return {
        "version": "1.0",
        "truncation": None,
        "padding": None,
        "added_tokens": added,
        "normalizer": None,
        "pre_tokenizer": pretokenizer_json(pre, where),
        "post_processor": template,
        "decoder": {"type": "ByteLevel", "add_prefix_space": True, "trim_offsets": True, "use_regex": True},
        "model": {
            "type": "BPE",
            "dropout": None,
            "unk_token": None,
            "continuing_subword_prefix": None,
            "end_of_word_suffix": None,
            "fuse_unk": False,
            "byte_fallback": False,
            "ignore_merges": pre in ("tekken", "llama-bpe"),
            "vocab": {
                t: i
                for i, (t, kind) in enumerate(zip(tokens, types, strict=True))
                if kind != TokenType.UNUSED
            },
            "merges": list(merges),
        },
    }


def _is_id(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and 0 <= value < MAX_TOKENS
