"""The tokens that a sampler chooses from, as llama.cpp holds them."""

import ctypes
from typing import Any

import numpy as np
from llama_cpp import llama_cpp as C
from numpy.typing import NDArray

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
