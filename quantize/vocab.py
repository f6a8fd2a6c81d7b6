"""The tokenizer of a checkpoint as GGUF metadata: which of its files counts, and what goes with the vocabulary.

As in llama.cpp's converter: tekken.json where there is no tokenizer.json, then tokenizer.model, then tokenizer.json.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from quantize.chat_template import chat_template_metadata
from quantize.checkpoint import Checkpoint
from quantize.errors import Unsupported
from quantize.folder import read_json_object_if_there
from quantize.source import Value, flag
from quantize.special_tokens import special_token_metadata
from quantize.vocab_bpe import bpe_model, bpe_vocabulary
from quantize.vocab_spm import spm_vocabulary, spm_vocabulary_from_json
from quantize.vocabulary import Vocabulary

_GRANITE_VOCABULARY = 49152  # StarCoder's, which llama.cpp's converter never lets begin with BOS


def tokenizer_metadata(checkpoint: Checkpoint, n_vocab: int | None) -> dict[str, Value]:
    """Give all `tokenizer.*` keys for a model with `n_vocab` embedding rows.

    Raises Unsupported for a folder without a tokenizer or with one of an unknown kind, CorruptFile for one that contradicts itself
    or the embedding.
    """
    folder = checkpoint.folder
    config = read_json_object_if_there(folder / "tokenizer_config.json")
    tokenizer = read_json_object_if_there(folder / "tokenizer.json")
    keys: dict[str, Value] = {}
    if (prefix := config.get("add_prefix_space")) is not None:
        keys["tokenizer.ggml.add_space_prefix"] = flag(bool(prefix))
    vocabulary = _vocabulary(folder, tokenizer, n_vocab)
    keys |= vocabulary.metadata()
    keys |= special_token_metadata(checkpoint.config, config, tokenizer, vocabulary.tokens)
    keys |= chat_template_metadata(folder, config)
    if n_vocab == _GRANITE_VOCABULARY:
        keys["tokenizer.ggml.add_bos_token"] = flag(False)
    return keys


def _vocabulary(folder: Path, tokenizer: Mapping[str, Any], n_vocab: int | None) -> Vocabulary:
    if (folder / "tokenizer.model").is_file():
        return spm_vocabulary(folder / "tokenizer.model", n_vocab)
    if not tokenizer:
        raise Unsupported(
            f"{folder.name} has no tokenizer.model, tokenizer.json or tekken.json; download one of them."
        )
    if bpe_model(tokenizer, "tokenizer.json").get("byte_fallback"):
        return spm_vocabulary_from_json(tokenizer, n_vocab, "tokenizer.json")
    return bpe_vocabulary(tokenizer, n_vocab, "tokenizer.json")
