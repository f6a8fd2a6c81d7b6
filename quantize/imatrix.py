"""Read importance matrices of llama-imatrix (GGUF or .dat): the weight of each column of a tensor.

Two files exist: GGUF (sums of squared activations and counts for each expert, tensors "<name>.in_sum2" and "<name>.counts") and
the older binary .dat (one count for each tensor). Both are brought to what llama-quantize hands to the quantizers.
"""

import hashlib
import struct
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from quantize.errors import CorruptFile
from quantize.ggml_types import GGMLQuantizationType
from quantize.source import TensorSource, Value, text, u32
from quantize.sources.gguf_header import MAGIC, GgufHeader, read_header
from quantize.sources.input_file import read_file
from quantize.wording import counted

_MAX_ENTRIES = 1 << 16
_MAX_NAME = 1 << 10
_MAX_VALUES = 1 << 28
_MAX_FILE = 1 << 30  # bytes; that of Mixtral 8x22B has 50 MB
_MAX_IMPORTANCE = 1e15  # the square of a float16 is at most 4.3e9
_EDGES = ("token_embd.weight", "output.weight")  # which llama-imatrix leaves out by default
_OWN = "sensitivity."  # before the names of the entries that only mixcli tailor reads (tailor/statistics.py)


@dataclass(frozen=True)
class Imatrix:
    """Mean squared activations for each column: flat float32 by tensor name, (n_expert * n_cols,) for stacked experts.

    `name` is the file's name, `digest` its SHA-256, `n_chunks` and `dataset` say on what it was measured (0 and "" when unknown).
    `n_matrices` has the number of experts of an entry, where the file says it.
    """

    name: str
    digest: str
    entries: Mapping[str, NDArray[np.float32]]
    n_chunks: int = 0
    dataset: str = ""
    n_matrices: Mapping[str, int] = field(default_factory=dict)

    def weights(self, tensor: TensorSource) -> NDArray[np.float32] | None:
        """Return the rows (n_expert, n_cols) for a tensor, None when the matrix does not have it.

        Raises CorruptFile when it has another shape, which means that it was made for another model; llama-quantize lets
        only the token embedding pass then, without weights.
        """
        values = self.entries.get(tensor.name)
        if values is None:
            return None
        n_cols = tensor.shape[-1]
        n_expert = tensor.shape[-3] if len(tensor.shape) > 2 else 1
        found = self.n_matrices.get(tensor.name, 1)
        if values.size == n_cols * n_expert and found in (1, n_expert):
            return values.reshape(n_expert, n_cols)
        if tensor.name == "token_embd.weight":
            return None
        experts = f"{counted(found, 'matrix', 'matrices')} of " if found > 1 or n_expert > 1 else ""
        wanted = f"{n_expert:,} of " if experts else ""
        raise CorruptFile(
            f"{self.name} has {experts}{counted(values.size // found, 'value')} for {tensor.name}, but the model needs {wanted}{n_cols:,}; "
            "it was made for another model: compute one with mixcli imatrix"
        )

    def check_model(self, tensors: Collection[TensorSource]) -> None:
        """Raise CorruptFile when not one tensor of a model is in the matrix, or one has another shape there, quantized or not."""
        if self.entries.keys().isdisjoint(tensor.name for tensor in tensors):
            first = next(iter(self.entries), "")
            raise CorruptFile(
                f"{self.name} has no values for any tensor of this model (but for {first[:80]!a}); it was made for another model: compute one with mixcli imatrix"
            )
        for tensor in tensors:
            self.weights(tensor)

    def coverage(self, quantized: Collection[str], all_tensors: Collection[str]) -> tuple[str, ...]:
        """Return how many of the `quantized` tensors have values, and what does not match, one sentence each.

        The token embedding and the output matrix count only where the file has them: llama-imatrix leaves them out.
        """
        wanted = [name for name in quantized if name in self.entries or name not in _EDGES]
        missing = [name for name in wanted if name not in self.entries]
        names = set(all_tensors)
        surplus = [name for name in self.entries if name not in names and not name.startswith(_OWN)]
        known = f"{self.name} has values for {len(wanted) - len(missing):,} of {counted(len(wanted), 'quantized tensor')}"
        if missing:
            known += f"; the other {len(missing):,}, such as {missing[0]}, are quantized without it"
        notes: tuple[str, ...] = (known,)
        if surplus:
            notes += (
                f"{counted(len(surplus), 'entry', 'entries')} of {self.name}, such as {surplus[0][:80]!a}, "
                f"{'fit' if len(surplus) > 1 else 'fits'} no tensor of this model; was it made for another one?",
            )
        return notes

    def metadata(self) -> dict[str, Value]:
        """Return the keys by which llama-quantize records the matrix in the result."""
        keys = {"quantize.imatrix.file": text(self.name)}
        if self.dataset:
            keys["quantize.imatrix.dataset"] = text(self.dataset)
        keys["quantize.imatrix.entries_count"] = u32(len(self.entries))
        if self.n_chunks > 0:
            keys["quantize.imatrix.chunks_count"] = u32(self.n_chunks)
        return keys


def read_imatrix(path: Path) -> Imatrix:
    """Read an importance matrix, GGUF or .dat; CorruptFile for one that contradicts itself or holds what no text can have given.

    A mean of squares is finite and not negative; with anything else ggml's quantizers would end this process.
    """
    data = read_file(path, _MAX_FILE)
    found = (_from_gguf if data.startswith(MAGIC) else _from_dat)(path, data)
    for name, values in found.entries.items():
        if not np.isfinite(values).all():
            raise CorruptFile(
                f"{path}: the values for {name!a} are not all finite; compute the importance matrix again"
            )
        if (least := float(values.min())) < 0:
            raise CorruptFile(
                f"{path}: the values for {name!a} go down to {least:g}, but a mean of squares is never negative; "
                "compute the importance matrix again"
            )
        if (most := float(values.max())) > _MAX_IMPORTANCE:
            raise CorruptFile(
                f"{path}: the values for {name!a} go up to {most:g}, and {_MAX_IMPORTANCE:g} is more than any activation's "
                "square; compute the importance matrix again"
            )
    return replace(found, digest=hashlib.sha256(data).hexdigest())


def _from_gguf(path: Path, data: bytes) -> Imatrix:
    header = read_header(_Bytes(data), str(path))
    sums = {t.name.removesuffix(".in_sum2") for t in header.tensors if t.name.endswith(".in_sum2")}
    counts = {t.name.removesuffix(".counts") for t in header.tensors if t.name.endswith(".counts")}
    if not sums or sums != counts:
        odd = sorted(sums ^ counts)
        detail = f"{odd[0]!a} has only one of sums and counts" if odd else "it has no sums"
        raise CorruptFile(f"{path} is not an importance matrix: {detail}; compute one with mixcli imatrix")
    entries, n_matrices = {}, {}
    for name in sorted(sums):
        total, count = (_values(path, header, data, name + suffix) for suffix in (".in_sum2", ".counts"))
        if total.size % count.size:
            raise CorruptFile(
                f"{path}: {name!a} has {counted(total.size, 'sum')} for {counted(count.size, 'count')}; compute the importance matrix again"
            )
        if not np.isfinite(count).all() or count.min() < 0:
            raise CorruptFile(
                f"{path}: the counts for {name!a} are not all finite and at least 0; compute the importance matrix again"
            )
        count = np.rint(count)[:, None]
        rows = total.reshape(len(count), -1)
        # An expert that the text never reached has no say: all its columns count alike.
        with np.errstate(all="ignore"):  # what comes of it is looked at by the caller
            means = np.where(count > 0, rows / np.where(count > 0, count, 1), 1)
            entries[name] = means.astype(np.float32).reshape(-1)
        n_matrices[name] = len(count)
    datasets = header.get("imatrix.datasets")
    dataset = (
        str(datasets[0])
        if isinstance(datasets, Sequence) and len(datasets) and not isinstance(datasets, str)
        else ""
    )
    n_chunks = header.get("imatrix.chunk_count", 0)
    is_count = isinstance(n_chunks, int) and not isinstance(n_chunks, bool) and 0 <= n_chunks < 1 << 31
    return Imatrix(path.name, "", entries, n_chunks if is_count else 0, dataset, n_matrices)


@dataclass(frozen=True)
class _Bytes:
    """Bytes at hand as the header reader takes them."""

    data: bytes

    @property
    def size(self) -> int:
        return len(self.data)

    def read_at(self, offset: int, n: int) -> bytes:
        return self.data[offset : offset + n]


def _values(path: Path, header: GgufHeader, data: bytes, name: str) -> NDArray[np.float32]:
    tensor = header.tensor(name)
    if tensor is None or tensor.type != GGMLQuantizationType.F32:
        raise CorruptFile(f"{path}: {name!a} must be F32; compute the importance matrix again")
    return np.frombuffer(data, dtype="<f4", count=tensor.n_elements, offset=tensor.offset)


def _from_dat(path: Path, data: bytes) -> Imatrix:
    """Read int32 n, then n times (name, n_calls, n_values, values), then n_chunks and the dataset's name if there."""
    at = _Position(path, data)
    n_entries = at.int32("the number of entries", 1, _MAX_ENTRIES)
    entries = {}
    for _ in range(n_entries):
        name = at.take(at.int32("the length of a name", 1, _MAX_NAME)).decode("utf-8", "replace")
        n_calls = at.int32(f"the calls for {name!a}", 0, (1 << 31) - 1)
        n_values = at.int32(f"the values for {name!a}", 1, _MAX_VALUES)
        values = np.frombuffer(at.take(4 * n_values), dtype="<f4").astype(np.float32)
        if name in entries:
            raise CorruptFile(f"{path} has {name!a} twice; compute the importance matrix again")
        with np.errstate(all="ignore"):  # what comes of it is looked at by the caller
            entries[name] = values / np.float32(n_calls) if n_calls else values
    if at.position + 8 > len(data):
        return Imatrix(path.name, "", entries)
    n_chunks = at.int32("the number of chunks", 0, (1 << 31) - 1)
    dataset = at.take(at.int32("the length of the dataset's name", 0, 1 << 16)).decode("utf-8", "replace")
    return Imatrix(path.name, "", entries, n_chunks, dataset)


class _Position:
    """A place in a .dat file that only moves inside it."""

    def __init__(self, path: Path, data: bytes) -> None:
        self.path, self.data, self.position = path, data, 0

    def take(self, n: int) -> bytes:
        start, self.position = self.position, self.position + n
        if self.position > len(self.data):
            raise CorruptFile(
                f"{self.path} is not an importance matrix or is truncated: it ends {counted(self.position - len(self.data), 'byte')} early; compute the importance matrix again"
            )
        return self.data[start : self.position]

    def int32(self, what: str, least: int, most: int) -> int:
        value: int = struct.unpack("<i", self.take(4))[0]
        if not least <= value <= most:
            raise CorruptFile(
                f"{self.path} is not an importance matrix: {what} is {value:,}; it must be {least} to {most:,}; compute one with mixcli imatrix"
            )
        return value


__all__ = ["Imatrix", "read_imatrix"]
