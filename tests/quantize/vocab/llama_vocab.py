"""llama.cpp's own tokenizer on the metadata that quantize/ made: a GGUF without tensors, loaded for its vocabulary only."""

import ctypes
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import gguf
import llama_cpp.llama_cpp as llama

from quantize.source import Value


def write_vocabulary(path: Path, metadata: Mapping[str, Value]) -> Path:
    """Write a GGUF of metadata alone, with the gguf package and not with our own writer."""
    writer = gguf.GGUFWriter(path, "llama")
    writer.kv_data = [{}]
    for key, value in metadata.items():
        item = None if value.item is None else gguf.GGUFValueType(value.item)
        writer.add_key_value(key, value.value, gguf.GGUFValueType(value.type), item)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


class LlamaVocab:
    """A loaded vocabulary."""

    def __init__(self, model: Any) -> None:
        self._vocab = llama.llama_model_get_vocab(model)
        self.n_tokens = llama.llama_vocab_n_tokens(self._vocab)

    def encode(self, text: str, *, special: bool = False, bos: bool = False) -> list[int]:
        """Tokenize; `special` lets text become control tokens."""
        raw = text.encode()
        room = len(raw) + 16
        ids = (ctypes.c_int32 * room)()
        n = llama.llama_tokenize(self._vocab, raw, len(raw), ids, room, bos, special)
        assert n >= 0
        return list(ids[:n])

    def is_control(self, index: int) -> bool:
        return bool(llama.llama_vocab_is_control(self._vocab, index))

    def ends_generation(self, index: int) -> bool:
        return bool(llama.llama_vocab_is_eog(self._vocab, index))


@contextmanager
def loaded(path: Path) -> Iterator[LlamaVocab]:
    """Load a file's vocabulary, llama.cpp's log switched off meanwhile."""

    @llama.llama_log_callback
    def quiet(_level: int, _text: bytes, _data: Any) -> None:
        pass

    llama.llama_log_set(quiet, ctypes.c_void_p(0))
    params = llama.llama_model_default_params()
    params.vocab_only = True
    model = llama.llama_model_load_from_file(str(path).encode(), params)
    assert model, f"llama.cpp does not load {path.name}"
    try:
        yield LlamaVocab(model)
    finally:
        llama.llama_model_free(model)
        llama.llama_log_set(llama.llama_log_callback(), ctypes.c_void_p(0))
