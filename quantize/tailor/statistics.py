"""Read what a forward pass measured: mean squares of the inputs of each matrix, and how much an error of each of its outputs costs.

Both stand in one importance matrix file. The entry of a matrix has the squares of its columns' inputs, as llama-imatrix writes them; the entry
under `SENSITIVITY` and its name has one number for each row (or one for all rows): the sum over the tokens of what a squared error of that output
does to the residual stream, relative to the stream's own square. llama-quantize never asks for the latter.
"""

import hashlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from quantize.errors import CorruptFile
from quantize.ggml_types import GGMLQuantizationType
from quantize.source import TensorSource
from quantize.sources.gguf_header import MAGIC, read_header

SENSITIVITY = "sensitivity."  # before the name of a matrix
SUMS, COUNTS = ".in_sum2", ".counts"


@dataclass(frozen=True)
class Statistics:
    """Sums (n_matrices, n) and counts (n_matrices,) by entry, and the digest of the file; a stack of experts has a count for each."""

    digest: str
    sums: Mapping[str, NDArray[np.float64]]
    counts: Mapping[str, NDArray[np.float64]]

    @property
    def n_tokens(self) -> int:
        """Return the tokens of which the sensitivities are; 0 where the file has none."""
        counts = [values for name, values in self.counts.items() if name.startswith(SENSITIVITY)]
        return int(max((one.max() for one in counts if len(one) == 1), default=0))

    def columns(self, name: str) -> NDArray[np.float64]:
        """Return the mean square of each input of a matrix, (n_matrices, n_columns); an expert that no token reached has the mean of all."""
        sums, counts = self.sums[name], self.counts[name]
        reached = counts > 0
        mean = sums.sum(axis=0) / max(counts.sum(), 1.0)
        return np.where(reached[:, None], sums / np.where(reached, counts, 1.0)[:, None], mean)

    def rows(self, name: str) -> NDArray[np.float64]:
        """Return what a squared error of each output costs on average over all tokens of the text, (n_matrices, n_rows or 1).

        An expert counts by the tokens that reach it; one that none reached has the mean of its layer.
        """
        sums, counts = self.sums[SENSITIVITY + name], self.counts[SENSITIVITY + name]
        reached = counts > 0
        mean = sums[reached].mean(axis=0) if reached.any() else np.ones(sums.shape[1])
        return np.where(reached[:, None], sums, mean) / max(self.n_tokens, 1)

    def has(self, name: str) -> bool:
        """Return whether both the inputs and the outputs of a matrix were measured."""
        return name in self.sums and SENSITIVITY + name in self.sums

    def check_model(self, tensors: Iterable[TensorSource], name: str) -> None:
        """Raise CorruptFile where a tensor has no measured inputs or outputs, or others than its shape; `name` is the file's."""
        for tensor in tensors:
            n = tensor.shape[-3] if len(tensor.shape) > 2 else 1
            n_rows, n_columns = tensor.shape[-2:]
            if not self.has(tensor.name):
                raise CorruptFile(
                    f"{name} was measured without {tensor.name}, whose type is to be chosen; compute one for this model: --imatrix auto"
                )
            inputs, outputs = self.sums[tensor.name].shape, self.sums[SENSITIVITY + tensor.name].shape
            if inputs != (n, n_columns) or outputs not in ((n, n_rows), (n, 1)):
                raise CorruptFile(
                    f"{name} has {inputs} inputs and {outputs} outputs of {tensor.name}, but the model needs {(n, n_columns)} and {(n, n_rows)}; "
                    "it was made for another model: --imatrix auto computes one"
                )


def has_counts(path: Path) -> bool:
    """Return whether an importance matrix is a GGUF, which has sums and counts; the older format has means, whatever its file is called."""
    with path.open("rb") as file:
        return file.read(len(MAGIC)) == MAGIC


def read_statistics(path: Path) -> Statistics:
    """Read a file; CorruptFile for one that is not a GGUF of sums and counts, or has values that no text can have given."""
    header = read_header(path)
    values = {}
    for tensor in header.tensors:
        if tensor.type != GGMLQuantizationType.F32:
            raise CorruptFile(f"{path}: {tensor.name!a} must be F32; compute it again")
        found = np.fromfile(path, "<f4", tensor.n_elements, offset=tensor.offset).astype(np.float64)
        if not np.isfinite(found).all() or (len(found) and found.min() < 0):
            raise CorruptFile(f"{path}: {tensor.name!a} has values below 0 or not finite; compute it again")
        values[tensor.name] = found
    names = [name.removesuffix(SUMS) for name in values if name.endswith(SUMS)]
    if not names or any(name + COUNTS not in values for name in names):
        raise CorruptFile(f"{path} is not an importance matrix: it has sums without counts; compute it again")
    counts = {name: values[name + COUNTS] for name in names}
    sums = {name: values[name + SUMS].reshape(len(counts[name]), -1) for name in names}
    return Statistics(hashlib.sha256(path.read_bytes()).hexdigest(), sums, counts)


__all__ = ["SENSITIVITY", "Statistics", "has_counts", "read_statistics"]
