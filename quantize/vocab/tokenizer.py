"""Convert the tokenizer of a checkpoint to GGUF metadata: choose its file, add what goes with the vocabulary.

As in llama.cpp's converter. A Mistral folder: tekken.json, else the SentencePiece file of the highest version. A Hugging Face folder:
tekken.json where there is no tokenizer.json, else tokenizer.model, else tokenizer.json.
"""

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from quantize.errors import Unsupported
from quantize.source import Value, flag, text
from quantize.sources.checkpoint import Checkpoint, Layout
from quantize.sources.folder import read_json_object_if_there
from quantize.vocab.bpe import bpe_model, bpe_vocabulary
from quantize.vocab.chat_template import chat_template_metadata
from quantize.vocab.mistral_jinja import BY_VERSION
from quantize.vocab.special_tokens import mistral_token_metadata, special_token_metadata
from quantize.vocab.spm import spm_vocabulary, spm_vocabulary_from_json
from quantize.vocab.tekken import tekken_vocabulary
from quantize.vocab.vocabulary import Vocabulary

_TEMPLATE = "tokenizer.chat_template"
_GRANITE_VOCABULARY = 49152  # StarCoder's, which llama.cpp's converter never lets begin with BOS
_VERSIONED = re.compile(r"tokenizer\.model\.(v\d+)(m\d+)?")


def tokenizer_metadata(
    checkpoint: Checkpoint, n_vocab: int | None, *, for_chat: bool = False
) -> dict[str, Value]:
    """Return all `tokenizer.*` keys for a model with `n_vocab` embedding rows.

    `for_chat` says that the model was trained for chats: without a template of its own it gets that of its tokenizer's version.

    Raises Unsupported for a folder without a tokenizer or with one of an unknown kind, CorruptFile for one that contradicts itself
    or the embedding.
    """
    folder = checkpoint.folder
    has_tekken = (folder / "tekken.json").is_file()
    if checkpoint.layout is Layout.MISTRAL or (has_tekken and not (folder / "tokenizer.json").is_file()):
        return _mistral(folder, n_vocab, for_chat)
    return _hugging_face(folder, checkpoint.config, n_vocab, for_chat)


def _mistral(folder: Path, n_vocab: int | None, for_chat: bool) -> dict[str, Value]:
    if (path := folder / "tekken.json").is_file():
        vocabulary, version = tekken_vocabulary(path, n_vocab)
    else:
        path, named = _newest_sentencepiece(folder)
        vocabulary = spm_vocabulary(path, n_vocab)
        version = named or sentencepiece_version(vocabulary)
    keys = vocabulary.metadata()
    keys |= mistral_token_metadata(vocabulary.tokens)
    template = chat_template_metadata(folder, read_json_object_if_there(folder / "tokenizer_config.json"))
    if for_chat and _TEMPLATE not in template and version in BY_VERSION:
        template[_TEMPLATE] = text(BY_VERSION[version])
    return keys | template


def _hugging_face(
    folder: Path, config: Mapping[str, Any], n_vocab: int | None, for_chat: bool
) -> dict[str, Value]:
    tokenizer_config = read_json_object_if_there(folder / "tokenizer_config.json")
    tokenizer = read_json_object_if_there(folder / "tokenizer.json")
    keys: dict[str, Value] = {}
    if (prefix := tokenizer_config.get("add_prefix_space")) is not None:
        keys["tokenizer.ggml.add_space_prefix"] = flag(bool(prefix))
    vocabulary = _hugging_face_vocabulary(folder, tokenizer, n_vocab)
    keys |= vocabulary.metadata()
    keys |= special_token_metadata(config, tokenizer_config, tokenizer, vocabulary.tokens)
    keys |= chat_template_metadata(folder, tokenizer_config)
    if n_vocab == _GRANITE_VOCABULARY:
        keys["tokenizer.ggml.add_bos_token"] = flag(False)
    if for_chat and _TEMPLATE not in keys and vocabulary.model == "llama":
        version = sentencepiece_version(vocabulary)
        if (
            version != "v1" and version in BY_VERSION
        ):  # version 1 has no control tokens: any fine-tune may have its own form
            keys[_TEMPLATE] = text(BY_VERSION[version])
    return keys


def _hugging_face_vocabulary(folder: Path, tokenizer: Mapping[str, Any], n_vocab: int | None) -> Vocabulary:
    if (folder / "tokenizer.model").is_file():
        return spm_vocabulary(folder / "tokenizer.model", n_vocab)
    if not tokenizer:
        raise Unsupported(
            f"{folder.name} has no tokenizer.model, tokenizer.json or tekken.json; download one of them"
        )
    if bpe_model(tokenizer, "tokenizer.json").get("byte_fallback"):
        return spm_vocabulary_from_json(tokenizer, n_vocab, "tokenizer.json")
    return bpe_vocabulary(tokenizer, n_vocab, "tokenizer.json")


def _newest_sentencepiece(folder: Path) -> tuple[Path, str | None]:
    versioned = [(path, match[1]) for path in folder.iterdir() if (match := _VERSIONED.fullmatch(path.name))]
    if versioned:
        return max(versioned, key=lambda found: (int(found[1][1:]), found[0].name))
    if (path := folder / "tokenizer.model").is_file():
        return path, None
    raise Unsupported(f"{folder.name} has no tokenizer.model and no tekken.json; download one of them")


def sentencepiece_version(vocabulary: Vocabulary) -> str:
    """Return the version of Mistral's tokenizer by the control tokens that came with them."""
    first = set(vocabulary.tokens[:64])
    if b"[SYSTEM_PROMPT]" in first:
        return "v7"
    if b"[INST]" not in first:
        return "v1"
    return "v3" if b"[PREFIX]" in first else "v2"
