"""A model of llama.cpp and its vocabulary, behind a small typed face.

Only this folder imports llama_cpp (ggml.py declares what the bindings leave out). Every object frees its native half when it is closed or collected, a context
before its model. Nothing here is thread-safe but `Context.interrupt`; one context belongs to one thread (two abort the process).
"""

import ctypes
import os
import re
from collections.abc import Callable, Sequence
from functools import cached_property
from pathlib import Path

from llama_cpp import llama_cpp as C

from mixcli.errors import DoesNotFit, IntegrityError, MixcliError, UsageError
from mixcli.llama import ggml, rpc
from mixcli.llama.candidates import Candidates
from mixcli.llama.log import LEVEL_ERROR
from mixcli.llama.native import LOG, OUT_OF_MEMORY, Owner, start_backend
from profiles.placement import Placement

# llama.cpp's load modes; "mlock" maps the file and then keeps it in memory
MAX_SEQUENCES = 256  # LLAMA_MAX_SEQ
LOAD_MODES = {"none": 0, "mmap": 1, "mlock": 3}


class LoadCancelled(MixcliError):
    """The progress callback asked to stop loading."""


class _BufferOverride(ctypes.Structure):
    """llama_model_tensor_buft_override, which the bindings leave out."""

    _fields_ = [("pattern", ctypes.c_char_p), ("buft", ctypes.c_void_p)]


def _buffer_overrides(overrides: Sequence[tuple[str, str]]) -> "ctypes.Array[_BufferOverride]":
    known = ggml.buffer_types()
    array = (_BufferOverride * (len(overrides) + 1))()
    for slot, (pattern, name) in zip(array, overrides, strict=False):
        if name not in known:
            raise UsageError(f"no buffer type {name!r} on this machine; use one of {', '.join(known)}")
        try:
            re.compile(pattern)
        except re.error as error:
            raise UsageError(f"tensor override {pattern!r} is not a regular expression: {error}") from None
        slot.pattern, slot.buft = pattern.encode(), known[name]
    return array


class Model(Owner):
    """Weights and vocabulary of one GGUF file."""

    def __init__(self, pointer: int, path: Path) -> None:
        super().__init__(pointer, C.llama_model_free)
        self.path = path
        self.vocab = Vocab(self)

    @classmethod
    def load(
        cls,
        path: Path,
        placement: Placement,
        on_progress: Callable[[float], bool] | None = None,
        *,
        no_alloc: bool = False,
    ) -> "Model":
        """Load a model as `placement` says; `on_progress` gets 0.0 to 1.0 and stops the load by returning False.

        With `no_alloc` only the header is read, and neither the model nor its contexts take memory: enough to learn how much they would.
        Raises LoadCancelled, DoesNotFit (out of memory), UsageError (a buffer type that does not exist) or IntegrityError with
        llama.cpp's reason. The file must have passed preflight: some headers abort the process.
        """
        start_backend()
        for endpoint in placement.workers:
            rpc.connect(endpoint)
        params = C.llama_model_default_params()
        params.n_gpu_layers = placement.n_gpu_layers
        params.no_alloc = no_alloc
        params.load_mode = LOAD_MODES["none" if no_alloc else placement.load_mode]
        params.use_extra_bufts = placement.repack
        overrides = _buffer_overrides(placement.tensor_overrides)
        params.tensor_buft_overrides = ctypes.addressof(overrides)
        if placement.tensor_split:
            split = (ctypes.c_float * C.llama_max_devices())(*placement.tensor_split)
            params.tensor_split = split
        return cls._load(path, params, on_progress)

    @classmethod
    def load_vocab(cls, path: Path) -> "Model":
        """Load only the vocabulary and metadata: enough to count and encode tokens."""
        start_backend()
        params = C.llama_model_default_params()
        params.vocab_only = True
        return cls._load(path, params, None)

    @classmethod
    def _load(
        cls, path: Path, params: "C.llama_model_params", on_progress: Callable[[float], bool] | None
    ) -> "Model":
        raised: list[BaseException] = []
        cancelled = False

        def progress(done: float, _: object) -> bool:
            nonlocal cancelled
            try:
                cancelled = on_progress is not None and not on_progress(done)
            except BaseException as error:  # must not be lost between the C++ frames; raised again below
                raised.append(error)
                return False
            return not cancelled

        params.progress_callback = callback = C.llama_progress_callback(progress)
        LOG.clear()
        pointer = C.llama_model_load_from_file(os.fsencode(path), params)
        del callback
        if raised:
            if pointer:
                C.llama_model_free(pointer)
            raise raised[0]
        if cancelled:
            if pointer:
                C.llama_model_free(pointer)
            raise LoadCancelled(f"loading {path.name} was cancelled")
        if not pointer:
            why = LOG.why() or "no reason given"
            if OUT_OF_MEMORY.search("\n".join(LOG.lines(LEVEL_ERROR))):
                raise DoesNotFit(f"{path.name} does not fit in memory: {why}; try a smaller quant")
            raise IntegrityError(
                f"llama.cpp cannot load {path.name}: {why}; check the file with `mixcli verify`"
            )
        return cls(pointer, path)

    @property
    def why_not_text(self) -> str:
        """Return in words why the engine cannot write text with this kind of model; empty where it can."""
        kinds = (
            (C.llama_model_has_encoder, "an encoder, which reads its text at once"),
            (C.llama_model_is_diffusion, "a diffusion model, which does not write from left to right"),
            (C.llama_model_is_recurrent, "a recurrent model, whose state cannot be cut back to a prefix"),
            (C.llama_model_is_hybrid, "a partly recurrent model, whose state cannot be cut back to a prefix"),
        )
        return next((words for is_kind, words in kinds if is_kind(self.pointer)), "")

    @property
    def n_layer(self) -> int:
        return int(C.llama_model_n_layer(self.pointer))

    @property
    def n_embd(self) -> int:
        return int(C.llama_model_n_embd(self.pointer))

    @property
    def n_ctx_train(self) -> int:
        return int(C.llama_model_n_ctx_train(self.pointer))

    @property
    def n_bytes(self) -> int:
        return int(C.llama_model_size(self.pointer))

    @property
    def description(self) -> str:
        """llama.cpp's short name, such as "llama 8x7B Q4_K - Medium"."""
        buffer = ctypes.create_string_buffer(256)
        C.llama_model_desc(self.pointer, buffer, len(buffer))
        return buffer.value.decode("utf-8", "replace")

    @property
    def chat_template(self) -> str | None:
        """Return the Jinja text of the GGUF, or None."""
        template: bytes | None = C.llama_model_chat_template(self.pointer, None)
        return None if template is None else template.decode("utf-8", "replace")

    def metadata(self, key: str) -> str | None:
        """Return one scalar metadata value as text, or None."""
        size = 1024
        while True:
            buffer = ctypes.create_string_buffer(size)
            length = C.llama_model_meta_val_str(self.pointer, key.encode(), buffer, size)
            if length < size:
                return None if length < 0 else buffer.value.decode("utf-8", "replace")
            size = length + 1


class Vocab:
    """The tokens of a model."""

    CONTROL, UNKNOWN, USER_DEFINED, BYTE, UNUSED = 1 << 3, 1 << 0, 1 << 4, 1 << 5, 1 << 1
    STRIPS = 1 << 7 | 1 << 8  # takes away the white space to its left, or right

    def __init__(self, model: Model) -> None:
        self._model = model
        self._pointer = C.llama_model_get_vocab(model.pointer)
        self.n_tokens = int(C.llama_vocab_n_tokens(self._pointer))
        self._pieces: dict[int, bytes] = {}
        self.stages: dict[tuple[object, ...], Owner] = {}  # of samplers, by what they were made for

    @property
    def addresses(self) -> tuple[int, int]:
        """Return where this vocabulary and llama_tokenize are in memory, for a library that calls it; valid as long as the model is."""
        tokenize = ctypes.cast(C.llama_tokenize, ctypes.c_void_p).value
        pointer = ctypes.cast(self._pointer, ctypes.c_void_p).value
        assert tokenize is not None
        assert pointer is not None
        return pointer, tokenize

    @cached_property
    def candidates(self) -> "Candidates":
        """Room to choose among all tokens, shared by all samplers of the engine's thread."""
        return Candidates(self.n_tokens)

    @cached_property
    def is_sentencepiece(self) -> bool:
        return bool(C.llama_vocab_type(self._pointer) == C.LLAMA_VOCAB_TYPE_SPM)

    @cached_property
    def is_bpe(self) -> bool:
        return bool(C.llama_vocab_type(self._pointer) == C.LLAMA_VOCAB_TYPE_BPE)

    @cached_property
    def pretokenizer(self) -> str:
        """Return the name of the pattern that cuts a text before it is merged ("tekken"); empty where there is none."""
        return self._model.metadata("tokenizer.ggml.pre") or ""

    @cached_property
    def adds_space_prefix(self) -> bool:
        """Return whether each text begins with a space that is not in it (SentencePiece's dummy prefix)."""
        return self.is_sentencepiece and self._model.metadata("tokenizer.ggml.add_space_prefix") != "false"

    @property
    def bos(self) -> int:
        return int(C.llama_vocab_bos(self._pointer))

    @property
    def eos(self) -> int:
        return int(C.llama_vocab_eos(self._pointer))

    @property
    def adds_bos(self) -> bool:
        return bool(C.llama_vocab_get_add_bos(self._pointer)) and self.bos >= 0

    @cached_property
    def ends(self) -> tuple[int, ...]:
        """Return the tokens that end a generation."""
        return tuple(token for token in range(self.n_tokens) if self.is_end(token))

    def is_end(self, token: int) -> bool:
        """Return whether a token ends a generation (</s>, <|im_end|>, ...)."""
        return bool(C.llama_vocab_is_eog(self._pointer, token))

    def text(self, token: int) -> str:
        """Return a token as it is written in the vocabulary ("▁the", "Ġthe", "<|im_start|>")."""
        text: bytes = C.llama_vocab_get_text(self._pointer, token)
        return text.decode("utf-8", "replace")

    def score(self, token: int) -> float:
        return float(C.llama_vocab_get_score(self._pointer, token))

    def attributes(self, token: int) -> int:
        """Return a token's kind as the bits CONTROL, UNKNOWN, USER_DEFINED, BYTE, UNUSED."""
        return int(C.llama_vocab_get_attr(self._pointer, token))

    @cached_property
    def specials(self) -> dict[str, int]:
        """Return the tokens that llama.cpp looks for before it splits a text: text to id."""
        bits = self.CONTROL | self.UNKNOWN | self.USER_DEFINED
        return {self.text(i): i for i in range(self.n_tokens) if self.attributes(i) & bits}

    def piece(self, token: int) -> bytes:
        """Return the bytes that a token adds to a text: none for a control token, maybe part of a character."""
        piece = self._pieces.get(token)
        if piece is None:
            size = 64
            buffer = ctypes.create_string_buffer(size)
            length = C.llama_token_to_piece(self._pointer, token, buffer, size, 0, False)
            if length < 0:
                size = -length
                buffer = ctypes.create_string_buffer(size)
                length = C.llama_token_to_piece(self._pointer, token, buffer, size, 0, False)
            piece = self._pieces[token] = buffer.raw[:length]
        return piece

    def tokenize(self, text: str) -> list[int]:
        """Split text into token ids, control tokens not looked for and none added.

        llama.cpp still matches USER_DEFINED tokens, and can merge characters into the text of a control token; what a person
        wrote goes through mixcli.prompts.content_tokenizer instead.
        """
        data = text.encode("utf-8", "replace")
        size = len(data) + 8
        while True:
            ids = (C.llama_token * size)()
            count = C.llama_tokenize(self._pointer, data, len(data), ids, size, False, False)
            if count >= 0:
                return list(ids[:count])
            size = -count
