"""Compute with a model: the KV cache, decode, logits, and intermediate tensors."""

import ctypes
import os
from collections.abc import Sequence
from functools import cache
from pathlib import Path

import numpy as np
from llama_cpp import llama_cpp as C
from numpy.typing import NDArray

from mixcli.errors import DoesNotFit, IntegrityError, MixcliError, UsageError
from mixcli.llama import ggml
from mixcli.llama.batch import Batch
from mixcli.llama.log import LEVEL_ERROR
from mixcli.llama.model import Model
from mixcli.llama.native import LOG, OUT_OF_MEMORY, Owner
from mixcli.llama.observers import EvalCallback, Tap
from mixcli.system.formatting import counted
from profiles.placement import Placement


class ComputeError(MixcliError):
    """llama_decode failed, and its state is as it was before; the message ends with llama.cpp's own words."""


class ContextLost(ComputeError):
    """llama_decode failed in the middle: what the context holds is unknown, so it can no longer be used."""


# llama_decode's codes for a batch of which nothing was computed: no room in the cache, an invalid batch, no memory for it (the micro-batch that
# did not get any is taken out of the cache again; those before it are cut away with the requests that end)
_REFUSED = frozenset({1, -1, -2})


class Context(Owner):
    """The KV cache and compute buffers of one model."""

    def __init__(
        self,
        model: Model,
        placement: Placement,
        *,
        kv_unified: bool = True,
        tap: Tap | None = None,
        embeddings: bool = False,
    ) -> None:
        """Allocate for `placement`; raise DoesNotFit without room, UsageError for an unknown KV type.

        With `embeddings` it has the hidden states of the last layer, of each token, in place of logits. A `tap` sees the graph's tensors
        while it computes, which is slow. Without `kv_unified` each sequence has cells of its own, n_ctx / n_sequences of them, and a
        micro-batch takes as many tokens of each sequence.
        """
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
        if embeddings:
            params.embeddings, params.pooling_type = True, C.LLAMA_POOLING_TYPE_NONE
        self._interrupted = ctypes.create_string_buffer(2)
        params.abort_callback = C.ggml_abort_callback(_flag_reader())
        params.abort_callback_data = ctypes.addressof(self._interrupted)
        self._observer = EvalCallback(tap) if tap else None
        if self._observer:
            params.cb_eval = self._observer.native
        LOG.clear()
        pointer = C.llama_init_from_model(model.pointer, params)
        if not pointer:
            why = LOG.why() or "no reason given"
            if OUT_OF_MEMORY.search("\n".join(LOG.lines(LEVEL_ERROR))):
                raise DoesNotFit(
                    f"not enough memory for a context of {placement.n_ctx:,} tokens: {why}; try a smaller --ctx"
                )
            raise MixcliError(
                f"llama.cpp cannot create a context of {placement.n_ctx:,} tokens: {why}; try a smaller --ctx"
            )
        super().__init__(pointer, C.llama_free)
        self.model = model
        self._n_asked = placement.n_ctx or model.n_ctx_train
        # Several GPUs work on micro-batches one after the other; elsewhere a larger batch only makes steps longer
        self.has_pipeline = (
            sum(share > 0 for share in placement.tensor_split) > 1 and not placement.tensor_overrides
        )
        self._memory = C.llama_get_memory(pointer)
        if not self._memory:
            raise IntegrityError(f"{model.path.name} has no KV cache: it is an encoder, which writes no text")
        # tokens that a layer with a sliding window looks back to; 0 for a model without such layers
        self.n_window = int(C.llama_model_n_swa(model.pointer))

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

    def synchronize(self) -> None:
        """Wait until the last decode is computed, which may still run on a GPU."""
        C.llama_synchronize(self.pointer)

    def interrupt(self) -> None:
        """Make the running (or the next) decode return early; callable from any thread. On GPUs it acts between kernels' batches."""
        self._interrupted.value = b"!"

    def logits(self, index: int = -1) -> NDArray[np.float32]:
        """View the logits after batch token `index`, shape (n_tokens of the vocabulary,); valid until the next decode."""
        pointer = C.llama_get_logits_ith(self.pointer, index)
        if not pointer:
            raise ComputeError(f"no logits were requested at batch position {index}")
        return np.ctypeslib.as_array(pointer, (self.model.vocab.n_tokens,))

    def logits_of_all(self, n: int) -> NDArray[np.float32]:
        """View the logits of the last batch's `n` tokens that wanted them, shape (n, n_tokens of the vocabulary); valid until the next decode."""
        pointer = C.llama_get_logits(self.pointer)
        if not pointer:
            raise ComputeError("no logits were requested in this batch")
        return np.ctypeslib.as_array(pointer, (n, self.model.vocab.n_tokens))

    def embedding(self, index: int) -> NDArray[np.float32]:
        """View the hidden state of batch token `index`, shape (n_embd,); valid until the next decode."""
        pointer = C.llama_get_embeddings_ith(self.pointer, index)
        if not pointer:
            raise ComputeError(f"no embedding was requested at batch position {index}")
        return np.ctypeslib.as_array(pointer, (self.model.n_embd,))

    def copy(self, source: int, target: int, n_tokens: int) -> None:
        """Let an empty sequence share the first `n_tokens` cells of another; nothing is moved."""
        C.llama_memory_seq_cp(self._memory, source, target, 0, n_tokens)

    def truncate(self, sequence: int, n_tokens: int) -> None:
        """Forget all but the first `n_tokens` of a sequence; ComputeError where the model's memory cannot be cut."""
        if not C.llama_memory_seq_rm(self._memory, sequence, n_tokens, -1):
            raise ComputeError("this model's memory is not a KV cache, so it cannot drop part of a sequence")

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
        """Fill an empty sequence with what `save` wrote; False, and the sequence stays empty, where it does not fit."""
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

    def can_continue(self, sequence: int, n_tokens: int) -> bool:
        """Return whether a text may continue after the first `n_tokens` of a sequence.

        Not where the cache of a model with a sliding window has given away cells that the window before that place reaches back to.
        """
        return int(C.llama_memory_seq_pos_min(self._memory, sequence)) <= max(0, n_tokens - self.n_window)


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
