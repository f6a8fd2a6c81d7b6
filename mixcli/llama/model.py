"""Typed wrappers of llama.cpp: Model, Vocab, Batch, Context, Sampler.

The only module of mixcli that imports llama_cpp (ggml.py declares what the bindings leave out). Every object frees its native half when it is closed or collected, a context
before its model. Nothing here is thread-safe but `Context.interrupt`; one context belongs to one thread (two abort the process).
"""

import ctypes
import os
import re
import weakref
from collections.abc import Callable, Iterable, Sequence
from functools import cache, cached_property
from pathlib import Path
from types import TracebackType
from typing import Any, Protocol, Self

import numpy as np
from llama_cpp import __version__ as bindings_version
from llama_cpp import llama_cpp as C
from numpy.typing import NDArray

from mixcli.errors import DoesNotFit, IntegrityError, MixcliError, UsageError
from mixcli.llama import ggml, rpc
from mixcli.llama.log import LEVEL_ERROR, Log
from mixcli.system.formatting import counted
from profiles.placement import Placement
from quantize import bindings

# llama.cpp's load modes; "mlock" maps the file and then keeps it in memory
MAX_SEQUENCES = 256  # LLAMA_MAX_SEQ
LOAD_MODES = {"none": 0, "mmap": 1, "mlock": 3}
_OUT_OF_MEMORY = re.compile(
    r"(?i)(failed|unable|cannot) to allocate|out of memory|cudaMalloc failed|bad_alloc"
)


class LoadCancelled(MixcliError):
    """The progress callback asked to stop loading."""


class ComputeError(MixcliError):
    """llama_decode failed, and its state is as it was before; the message ends with llama.cpp's own words."""


class ContextLost(ComputeError):
    """llama_decode failed in the middle: what the context holds is unknown, so it can no longer be used."""


if _wrong := bindings.mismatch(C, bindings_version):
    raise MixcliError(_wrong)
LOG = Log()
_on_log = C.llama_log_callback(LOG)
os.environ.setdefault("GGML_NO_BACKTRACE", "1")  # an abort must not start a debugger on the terminal


def _start_backend() -> None:
    C.llama_backend_init()  # does its work once
    C.llama_log_set(
        _on_log, None
    )  # the bindings print on stderr; others in this process may have borrowed it


_start_backend()


class _Owner:
    """An object that owns one native pointer and frees it once."""

    def __init__(self, pointer: int, free: Callable[[int], object]) -> None:
        self.pointer = pointer
        self._free = weakref.finalize(self, free, pointer)

    def close(self) -> None:
        self._free()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: type[BaseException] | BaseException | TracebackType | None) -> None:
        self.close()


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


class Model(_Owner):
    """Weights and vocabulary of one GGUF file."""

    def __init__(self, pointer: int, path: Path) -> None:
        super().__init__(pointer, C.llama_model_free)
        self.path = path
        self.vocab = Vocab(self)

    @classmethod
    def load(
        cls, path: Path, placement: Placement, on_progress: Callable[[float], bool] | None = None
    ) -> "Model":
        """Load a model as `placement` says; `on_progress` gets 0.0 to 1.0 and stops the load by returning False.

        Raises LoadCancelled, DoesNotFit (out of memory), UsageError (a buffer type that does not exist) or IntegrityError with
        llama.cpp's reason. The file must have passed preflight: some headers abort the process.
        """
        _start_backend()
        for endpoint in placement.workers:
            rpc.connect(endpoint)
        params = C.llama_model_default_params()
        params.n_gpu_layers = placement.n_gpu_layers
        params.load_mode = LOAD_MODES[placement.load_mode]
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
        _start_backend()
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
            why = LOG.why() or "llama.cpp gave no reason"
            if _OUT_OF_MEMORY.search("\n".join(LOG.lines(LEVEL_ERROR))):
                raise DoesNotFit(f"{path.name} does not fit in memory: {why}; try a smaller quant")
            raise IntegrityError(f"llama.cpp cannot load {path.name}: {why}")
        return cls(pointer, path)

    @property
    def n_layer(self) -> int:
        return int(C.llama_model_n_layer(self.pointer))

    @property
    def n_ctx_train(self) -> int:
        return int(C.llama_model_n_ctx_train(self.pointer))

    @property
    def n_bytes(self) -> int:
        return int(C.llama_model_size(self.pointer))

    @property
    def n_params(self) -> int:
        return int(C.llama_model_n_params(self.pointer))

    @property
    def description(self) -> str:
        """llama.cpp's short name, such as "llama 8x7B Q4_K - Medium"."""
        buffer = ctypes.create_string_buffer(256)
        C.llama_model_desc(self.pointer, buffer, len(buffer))
        return buffer.value.decode("utf-8", "replace")

    @property
    def chat_template(self) -> str | None:
        """The Jinja text of the GGUF, or None."""
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
        """The name of the pattern that cuts a text before it is merged ("tekken"); empty where there is none."""
        return self._model.metadata("tokenizer.ggml.pre") or ""

    @cached_property
    def adds_space_prefix(self) -> bool:
        """Whether each text begins with a space that is not in it (SentencePiece's dummy prefix)."""
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

    def is_end(self, token: int) -> bool:
        """Whether a token ends a generation (</s>, <|im_end|>, ...)."""
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
        """The tokens that llama.cpp looks for before it splits a text: text to id."""
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


class Batch:
    """Up to `capacity` tokens for one llama_decode, each with its position and the sequences that it belongs to.

    The arrays are numpy's own; llama.cpp reads them during a decode and keeps nothing.
    """

    def __init__(self, capacity: int) -> None:
        self.capacity = capacity
        self._token = np.zeros(capacity, np.int32)
        self._pos = np.zeros(capacity, np.int32)
        self._logits = np.zeros(capacity, np.int8)
        self._n_seq = np.zeros(capacity, np.int32)
        self._seq = np.zeros(capacity, np.uint64)  # for each token the address of its sequence ids
        self._ids = np.zeros(4 * capacity + MAX_SEQUENCES, np.int32)
        self._n_ids = 0
        self.max_ids = len(self._ids)  # ids of sequences on all tokens together
        self.native = C.llama_batch(
            0,
            _address(self._token, ctypes.c_int32),
            None,
            _address(self._pos, ctypes.c_int32),
            _address(self._n_seq, ctypes.c_int32),
            _address(self._seq, ctypes.POINTER(ctypes.c_int32)),
            _address(self._logits, ctypes.c_int8),
        )

    def __len__(self) -> int:
        return int(self.native.n_tokens)

    def clear(self) -> None:
        self.native.n_tokens = self._n_ids = 0

    def extend(self, tokens: Sequence[int], start: int, sequence: int, n_logits: int) -> None:
        """Add tokens at positions start, start+1, ... of a sequence; logits are wanted after the last `n_logits` of them."""
        begin, end = len(self), len(self) + len(tokens)
        self._token[begin:end] = tokens
        self._pos[begin:end] = np.arange(start, start + len(tokens))
        self._logits[begin:end] = 0
        self._logits[end - n_logits : end] = 1
        self._belong(begin, end, (sequence,))

    def add(self, token: int, position: int, sequences: Sequence[int]) -> None:
        """Add one token, with logits, that several sequences share."""
        at = len(self)
        self._token[at], self._pos[at], self._logits[at] = token, position, 1
        self._belong(at, at + 1, sequences)

    def _belong(self, begin: int, end: int, sequences: Sequence[int]) -> None:
        first, self._n_ids = self._n_ids, self._n_ids + len(sequences)
        if self._n_ids > len(self._ids):
            raise ValueError("too many sequences share the tokens of one batch")
        self._ids[first : self._n_ids] = sequences
        self._n_seq[begin:end] = len(sequences)
        self._seq[begin:end] = self._ids.ctypes.data + first * self._ids.itemsize
        self.native.n_tokens = end


def _address(array: "NDArray[Any]", kind: Any) -> Any:
    return array.ctypes.data_as(ctypes.POINTER(kind))


class Tap(Protocol):
    """Observe intermediate tensors while a context computes (slow: the graph runs one wanted tensor at a time)."""

    def wants(self, name: str) -> bool:
        """Return whether the tensor of this name ("ffn_moe_topk-7") is to be seen; asked once a name."""

    def see(self, name: str, values: "NDArray[np.generic]") -> None:
        """Take a copy of its values, in numpy order."""


# llama_decode's codes for a batch of which nothing was computed: no room in the cache, an invalid batch, no memory for it (the micro-batch that
# did not get any is taken out of the cache again; those before it are cut away with the requests that end)
_REFUSED = frozenset({1, -1, -2})


class Context(_Owner):
    """The KV cache and compute buffers of one model."""

    def __init__(
        self, model: Model, placement: Placement, *, kv_unified: bool = True, tap: Tap | None = None
    ) -> None:
        """Allocate for `placement`; raise DoesNotFit without room, UsageError for an unknown KV type."""
        for field in ("type_k", "type_v"):
            if getattr(placement, field) not in ggml.KV_TYPES:
                raise UsageError(
                    f"{field} {getattr(placement, field)!r} is not one of {', '.join(ggml.KV_TYPES)}"
                )
        params = C.llama_context_default_params()
        params.n_ctx, params.n_batch, params.n_ubatch = placement.n_ctx, placement.n_batch, placement.n_ubatch
        params.n_seq_max, params.kv_unified = placement.n_sequences, kv_unified
        params.n_threads, params.n_threads_batch = placement.n_threads, placement.n_threads_batch
        params.type_k, params.type_v = ggml.KV_TYPES[placement.type_k], ggml.KV_TYPES[placement.type_v]
        params.flash_attn_type = int(placement.flash_attn)
        params.op_offload = placement.op_offload
        self._interrupted = ctypes.create_string_buffer(2)
        params.abort_callback = C.ggml_abort_callback(_flag_reader())
        params.abort_callback_data = ctypes.addressof(self._interrupted)
        self._observer = _Observer(tap) if tap else None
        if self._observer:
            params.cb_eval = self._observer.callback
        LOG.clear()
        pointer = C.llama_init_from_model(model.pointer, params)
        if not pointer:
            why = LOG.why() or "llama.cpp gave no reason"
            if _OUT_OF_MEMORY.search("\n".join(LOG.lines(LEVEL_ERROR))):
                raise DoesNotFit(
                    f"not enough memory for a context of {placement.n_ctx:,} tokens: {why}; try a smaller --ctx"
                )
            raise MixcliError(f"llama.cpp cannot create a context of {placement.n_ctx:,} tokens: {why}")
        super().__init__(pointer, C.llama_free)
        self.model = model
        self._n_asked = placement.n_ctx or model.n_ctx_train
        # Several GPUs work on micro-batches one behind the other; elsewhere a larger batch only makes steps longer
        self.has_pipeline = (
            sum(share > 0 for share in placement.tensor_split) > 1 and not placement.tensor_overrides
        )
        self._memory = C.llama_get_memory(pointer)

    @property
    def n_ctx(self) -> int:
        """Tokens that one text may have: as many as were asked for."""
        return min(self._n_asked, self.n_cells)

    @property
    def n_cells(self) -> int:
        """Tokens that fit into the cache, of all texts: llama.cpp rounds what is asked for up to its next multiple of 256."""
        return int(C.llama_n_ctx(self.pointer))

    @property
    def n_batch(self) -> int:
        return int(C.llama_n_batch(self.pointer))

    @property
    def n_ubatch(self) -> int:
        return int(C.llama_n_ubatch(self.pointer))

    @property
    def n_sequences(self) -> int:
        """Sequence ids that can be used: 0 .. n_sequences - 1."""
        return int(C.llama_n_seq_max(self.pointer))

    def decode(self, batch: Batch) -> bool:
        """Compute a batch; False when `interrupt` stopped it (whole micro-batches before it stay in the cache).

        Raises ComputeError when llama.cpp refuses the batch or has no room for it, ContextLost when it fails to compute.
        """
        code = C.llama_decode(self.pointer, batch.native)
        if self._observer and (error := self._observer.error):
            self._observer.error = None
            raise error
        if code == 0:
            return True
        if code == 2:
            self._interrupted.value = b""
            return False
        reasons = {
            1: "the KV cache has no room for the batch",
            -1: "the batch is invalid",
            -2: "out of memory",
            -3: "the computation failed",
        }
        why = LOG.why()
        raise (ComputeError if code in _REFUSED else ContextLost)(
            f"llama.cpp could not compute {counted(len(batch), 'token')}: {reasons.get(code, f'error {code}')}"
            + (f" ({why})" if why else "")
        )

    def interrupt(self) -> None:
        """Make the running (or the next) decode return early; callable from any thread. On GPUs it acts between kernels' batches."""
        self._interrupted.value = b"!"

    def logits(self, index: int = -1) -> NDArray[np.float32]:
        """View the logits after batch token `index`, shape (n_tokens of the vocabulary,); valid until the next decode."""
        pointer = C.llama_get_logits_ith(self.pointer, index)
        if not pointer:
            raise ComputeError(f"no logits were requested at batch position {index}")
        return np.ctypeslib.as_array(pointer, (self.model.vocab.n_tokens,))

    def copy(self, source: int, target: int, n_tokens: int) -> None:
        """Let an empty sequence share the first `n_tokens` cells of another; nothing is moved."""
        C.llama_memory_seq_cp(self._memory, source, target, 0, n_tokens)

    def cut(self, sequence: int, n_tokens: int) -> None:
        """Forget all but the first `n_tokens` of a sequence; ComputeError where the model's memory cannot be cut."""
        if not C.llama_memory_seq_rm(self._memory, sequence, n_tokens, -1):
            raise ComputeError("this model's memory is not a KV cache, so it cannot drop part of a text")

    def clear(self) -> None:
        """Forget all sequences; the next one begins with the first cell."""
        C.llama_memory_clear(self._memory, False)

    def state_size(self, sequence: int) -> int:
        """Return the bytes of what a sequence has in the cache, as llama.cpp writes it; nothing is copied."""
        return int(C.llama_state_seq_get_size(self.pointer, sequence))

    def save(self, sequence: int, tokens: Sequence[int], path: Path) -> bool:
        """Write a sequence's tokens and state to a file, layer by layer; False where the disk refuses."""
        array = (C.llama_token * len(tokens))(*tokens)
        return bool(
            C.llama_state_seq_save_file(self.pointer, os.fsencode(path), sequence, array, len(tokens))
        )

    def restore(self, sequence: int, n_tokens: int, path: Path) -> bool:
        """Fill an empty sequence with what `save` wrote; False, and the sequence stays empty, where it does not go in."""
        array, n_read = (C.llama_token * n_tokens)(), ctypes.c_size_t()
        done = C.llama_state_seq_load_file(
            self.pointer, os.fsencode(path), sequence, array, n_tokens, ctypes.byref(n_read)
        )
        if not done or n_read.value != n_tokens or self.n_cached(sequence) != n_tokens:
            C.llama_memory_seq_rm(self._memory, sequence, -1, -1)
            return False
        return True

    def set_threads(self, n_threads: int, n_threads_batch: int) -> None:
        """Compute with so many threads from the next decode on: one token at a time, and batches."""
        C.llama_set_n_threads(self.pointer, n_threads, n_threads_batch)

    def n_cached(self, sequence: int) -> int:
        """Return the number of tokens of a sequence that are in the KV cache."""
        return int(C.llama_memory_seq_pos_max(self._memory, sequence)) + 1


class _Observer:
    """cb_eval for a Tap: a name is asked about once, so that an unwanted tensor costs one dictionary look."""

    def __init__(self, tap: Tap) -> None:
        self._tap = tap
        self._wanted: dict[str, bool] = {}
        self.callback = C.ggml_backend_sched_eval_callback(self._observe)
        self.error: BaseException | None = None

    def _observe(self, tensor: int, ask: bool, _: object) -> bool:
        """Return whether the tensor is wanted when asked, and whether to continue the graph when it is shown."""
        try:
            name = ggml.tensor_name(tensor)
            if name not in self._wanted:
                self._wanted[name] = self._tap.wants(name)
            if ask:
                return self._wanted[name]
            self._tap.see(name, ggml.tensor_values(tensor))
        except BaseException as error:  # must not be lost between the C frames; decode raises it
            self.error = error
            return False
        return True


@cache
def _flag_reader() -> int:
    """Return the address of a C function that says whether the byte behind its pointer is set: strlen.

    llama.cpp asks its abort callback at every node of the graph. A Python callback would take the interpreter lock thousands of
    times a token; the length of an empty or one-letter C string, read as a bool, is the same answer at no cost.
    """
    libc = ctypes.cdll.msvcrt if os.name == "nt" else ctypes.CDLL(None)
    address = ctypes.cast(libc.strlen, ctypes.c_void_p).value
    assert address is not None
    return address


_CANDIDATE = np.dtype([("id", np.int32), ("logit", np.float32), ("p", np.float32)])  # llama_token_data


class Candidates:
    """The tokens that a Sampler chooses from, in memory that is written again for every choice; belongs to one thread."""

    def __init__(self, capacity: int) -> None:
        self._every = np.arange(capacity, dtype=np.int32)
        self._data = np.zeros(capacity, _CANDIDATE)
        self._start = self._data.ctypes.data_as(C.llama_token_data_p)
        self._native = C.llama_token_data_array(data=self._start)
        self._reference = ctypes.byref(self._native)

    def put_all(self, logits: NDArray[np.float32]) -> None:
        """Take every token, by its id."""
        self.put(self._every[: len(logits)], logits)

    def put(self, ids: NDArray[np.integer[Any]], logits: NDArray[np.float32]) -> None:
        """Take new candidates, in any order."""
        native, count = self._native, len(ids)
        self._data["id"][:count], self._data["logit"][:count] = ids, logits
        native.data, native.size, native.selected, native.sorted = self._start, count, -1, False

    @property
    def ids(self) -> NDArray[np.int32]:
        """View the tokens that are left, as the last stage ordered them."""
        return self._left["id"]

    @property
    def logits(self) -> NDArray[np.float32]:
        """View their logits."""
        return self._left["logit"]

    @property
    def chosen(self) -> int:
        """Return the token that the chain's last stage chose."""
        return int(self._native.data[self._native.selected].id)

    @property
    def _left(self) -> NDArray[np.void]:
        """View what is left; a stage may have moved the beginning (XTC does, to drop the most likely)."""
        moved = ctypes.addressof(self._native.data.contents) - self._data.ctypes.data
        first = moved // _CANDIDATE.itemsize
        return self._data[first : first + self._native.size]


class Sampler(_Owner):
    """A chain of llama.cpp's samplers; stages run in the order in which they are added."""

    def __init__(self) -> None:
        super().__init__(
            C.llama_sampler_chain_init(C.llama_sampler_chain_default_params()), C.llama_sampler_free
        )

    def __len__(self) -> int:
        return int(C.llama_sampler_chain_n(self.pointer))

    def _add(self, stage: int) -> Self:
        C.llama_sampler_chain_add(self.pointer, stage)
        return self

    def penalties(
        self,
        n_vocab: int,
        last_n: int,
        *,
        repeat: float = 1.0,
        frequency: float = 0.0,
        presence: float = 0.0,
        seen: Iterable[int] = (),
    ) -> Self:
        """Penalize what stands among the last `last_n` tokens, of which `seen` are already there."""
        stage = C.llama_sampler_init_penalties(n_vocab, last_n, repeat, frequency, presence)
        for token in seen:
            C.llama_sampler_accept(stage, token)
        return self._add(stage)

    def dry(
        self,
        vocab: Vocab,
        *,
        multiplier: float,
        base: float,
        allowed_length: int,
        last_n: int,
        breakers: Sequence[str],
        seen: Iterable[int] = (),
    ) -> Self:
        """Penalize a token that would extend a repetition beyond `allowed_length` tokens; breakers end a repetition."""
        texts = (ctypes.c_char_p * len(breakers))(*(text.encode() for text in breakers))
        stage = C.llama_sampler_init_dry(
            vocab._pointer, multiplier, base, allowed_length, last_n, texts, len(breakers)
        )
        for token in seen:
            C.llama_sampler_accept(stage, token)
        return self._add(stage)

    def top_k(self, k: int) -> Self:
        return self._add(C.llama_sampler_init_top_k(k))

    def top_p(self, p: float) -> Self:
        return self._add(C.llama_sampler_init_top_p(p, 1))

    def min_p(self, p: float) -> Self:
        return self._add(C.llama_sampler_init_min_p(p, 1))

    def typical_p(self, p: float) -> Self:
        return self._add(C.llama_sampler_init_typical(p, 1))

    def xtc(self, probability: float, threshold: float, seed: int) -> Self:
        """Leave out, with a probability, all but the last of the tokens that are more likely than the threshold."""
        return self._add(C.llama_sampler_init_xtc(probability, threshold, 1, seed))

    def temperature(self, t: float, spread: float = 0.0, exponent: float = 1.0) -> Self:
        """Divide by `t`; with a spread by t - spread .. t + spread, the more the less certain the model is."""
        return self._add(C.llama_sampler_init_temp_ext(t, spread, exponent))

    def random(self, seed: int) -> Self:
        """Draw from what is left; `seed` has 32 bits and is not 0xFFFFFFFF (which would be a random seed)."""
        return self._add(C.llama_sampler_init_dist(seed))

    def mirostat(self, n_vocab: int, seed: int, tau: float, eta: float) -> Self:
        """Draw so that the surprise of each token stays around `tau` bits; the estimate uses the 100 most likely, as in the paper."""
        return self._add(C.llama_sampler_init_mirostat(n_vocab, seed, tau, eta, 100))

    def mirostat_v2(self, seed: int, tau: float, eta: float) -> Self:
        return self._add(C.llama_sampler_init_mirostat_v2(seed, tau, eta))

    def apply(self, candidates: Candidates) -> None:
        """Run the stages; they change, reorder and drop candidates, and a last one that draws chooses."""
        C.llama_sampler_apply(self.pointer, candidates._reference)

    def accept(self, token: int) -> None:
        """Pass the chosen token to the stages that remember."""
        C.llama_sampler_accept(self.pointer, token)
