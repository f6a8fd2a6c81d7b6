"""Tokens to compute: which ones, at which positions, for which sequences."""

import ctypes
from collections.abc import Sequence
from typing import Any

import numpy as np
from llama_cpp import llama_cpp as C
from numpy.typing import NDArray

from mixcli.llama.model import MAX_SEQUENCES


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
