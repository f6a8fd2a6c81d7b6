"""Find the tokens that begin, end and pad a text, and whether the tokenizer adds them automatically.

Two files say so: tokenizer_config.json by text (looked up among the added tokens of tokenizer.json), config.json by id. Where
tokenizer.json has a post-processor, that is what really adds tokens, and it outweighs the flags of tokenizer_config.json.
"""

from collections.abc import Mapping, Sequence
from typing import Any

from quantize.errors import MalformedFile
from quantize.source import Value, flag, u32
from quantize.vocab.bpe import added_tokens

_ID_KEYS = {
    "bos": "tokenizer.ggml.bos_token_id",
    "eos": "tokenizer.ggml.eos_token_id",
    "unk": "tokenizer.ggml.unknown_token_id",
    "sep": "tokenizer.ggml.seperator_token_id",  # spelt so in the format
    "pad": "tokenizer.ggml.padding_token_id",
    "mask": "tokenizer.ggml.mask_token_id",
}
_ADD_KEYS = {
    "bos": "tokenizer.ggml.add_bos_token",
    "eos": "tokenizer.ggml.add_eos_token",
    "sep": "tokenizer.ggml.add_sep_token",
}


def special_token_metadata(
    config: Mapping[str, Any],
    tokenizer_config: Mapping[str, Any],
    tokenizer: Mapping[str, Any],
    tokens: Sequence[bytes],
) -> dict[str, Value]:
    """Return the keys of special ids and of what is added, in the order of llama.cpp's converter.

    `tokenizer` is tokenizer.json or empty, `tokens` the whole vocabulary. Ids outside of it are left out; a negative one
    is CorruptFile.
    """
    ids = _ids_by_text(tokenizer_config, tokenizer)
    text_config = config.get("text_config")
    for kind in _ID_KEYS:
        index = config.get(f"{kind}_token_id")
        if index is None and isinstance(text_config, dict):
            index = text_config.get(f"{kind}_token_id")
        if (
            isinstance(index, int) and not isinstance(index, bool) and index != -1
        ):  # -1 is an old way to say none
            if index < 0:
                raise MalformedFile(f"config.json has the invalid {kind}_token_id {index}")
            ids.setdefault(kind, index)
    for kind in ("bos", "eos"):  # without tokenizer.json and without ids: the text is all there is
        wanted = _text(tokenizer_config.get(f"{kind}_token"))
        if kind not in ids and wanted is not None and wanted.encode() in tokens:
            ids[kind] = tokens.index(wanted.encode())
    keys = {_ID_KEYS[kind]: u32(index) for kind, index in ids.items() if index < len(tokens)}
    for kind, value in _added(tokenizer_config, tokenizer).items():
        keys[_ADD_KEYS[kind]] = flag(value)
    return keys


def mistral_token_metadata(tokens: Sequence[bytes]) -> dict[str, Value]:
    """Return the keys for one of Mistral's own tokenizers: texts begin with BOS; what has no <pad> is padded by EOS."""
    ids = {kind: tokens.index(token) for kind, token in _MISTRAL.items() if token in tokens}
    if "eos" in ids:
        ids.setdefault("pad", ids["eos"])
    keys = {_ID_KEYS[kind]: u32(index) for kind, index in ids.items()}
    return keys | {_ADD_KEYS["bos"]: flag(True), _ADD_KEYS["eos"]: flag(False)}


_MISTRAL = {"bos": b"<s>", "eos": b"</s>", "unk": b"<unk>", "pad": b"<pad>"}


def _ids_by_text(tokenizer_config: Mapping[str, Any], tokenizer: Mapping[str, Any]) -> dict[str, int]:
    by_text: dict[str, int] = {}
    for index, (text, _special) in added_tokens(tokenizer, "tokenizer.json").items():
        by_text.setdefault(text, index)
    ids = {}
    for kind in _ID_KEYS:
        wanted = _text(tokenizer_config.get(f"{kind}_token"))
        if wanted in by_text:
            ids[kind] = by_text[wanted]
    return ids


def _added(tokenizer_config: Mapping[str, Any], tokenizer: Mapping[str, Any]) -> dict[str, bool]:
    added: dict[str, bool] = {}
    post = tokenizer.get("post_processor")
    steps = (post.get("processors") or [post]) if isinstance(post, dict) else []
    for step in steps if isinstance(steps, list) else []:
        kind = step.get("type") if isinstance(step, dict) else None
        if kind == "ByteLevel":
            added.setdefault("bos", False)
            added.setdefault("eos", False)
        elif kind == "TemplateProcessing":
            single = step.get("single")
            if isinstance(single, list) and len(single) > 1:
                for end, place in (("bos", single[0]), ("eos", single[-1])):
                    special = place.get("SpecialToken") if isinstance(place, dict) else None
                    marker = special.get("id") if isinstance(special, dict) else None
                    if marker:
                        stated = _text(tokenizer_config.get(f"{end}_token"))
                        added[end] = stated is None or marker == stated
    for kind in _ADD_KEYS:
        value = tokenizer_config.get(f"add_{kind}_token")
        if isinstance(value, bool):
            added.setdefault(kind, value)
    return added


def _text(entry: Any) -> str | None:
    content = entry.get("content") if isinstance(entry, dict) else entry
    return content if isinstance(content, str) else None
