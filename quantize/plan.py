"""Plan a write before the first weight is read: files, slabs, disk, memory.

The result is cut into slabs of whole rows, about a million weights each. Where the cuts lie depends on nothing but the shapes, so that
a later run finds the same slabs again, with any number of threads.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from quantize import ggml
from quantize.errors import NeedsOption, Unsupported
from quantize.file_layout import PlacedFile, PlacedTensor, lay_out
from quantize.ggml_types import BLOCK, GGMLQuantizationType
from quantize.imatrix import Imatrix
from quantize.parallel import n_cores
from quantize.recipe import FILE_TYPES, file_type_name
from quantize.source import ModelSource, Value

MAX_SLAB = 1 << 20  # weights
MIN_SLAB = 1 << 14
N_SLABS = 512  # at least, so that a kill loses little even of a small model
BYTES_PER_WEIGHT = 16  # of memory while a slab is worked on: source, float32, result, and the quantizer's own


@dataclass(frozen=True)
class Slab:
    """Rows [start, stop) of one tensor of file number `file`, all of one expert."""

    file: int
    tensor: PlacedTensor
    start: int
    stop: int

    @property
    def offset(self) -> int:
        return self.tensor.offset + self.start * self.tensor.row_bytes

    @property
    def n_bytes(self) -> int:
        return (self.stop - self.start) * self.tensor.row_bytes


@dataclass(frozen=True)
class WritePlan:
    """Everything about a write that is known before the first weight is read; sizes in bytes.

    `sources` are the files that it reads, each with its state when it was opened (see `states_of`).
    """

    target: Path
    files: tuple[PlacedFile, ...]
    imatrix: Imatrix | None
    n_workers: int
    fingerprint: str
    sources: tuple[tuple[Path, object], ...] = ()
    notes: tuple[str, ...] = ()

    @cached_property
    def slabs(self) -> tuple[Slab, ...]:
        """Return all units of work, in file order; a slab is known by its place here."""
        size = _slab_size(self.files)
        return tuple(
            Slab(number, tensor, start, stop)
            for number, file in enumerate(self.files)
            for tensor in file.tensors
            for start, stop in _cuts(tensor, size)
        )

    @property
    def bytes_disk(self) -> int:
        """Return the size of the result, which is also the peak: nothing else is written but the journal."""
        return sum(file.size for file in self.files)

    @property
    def bytes_memory(self) -> int:
        """Return the most that all workers hold at one time, beyond the mapped source and the interpreter."""
        return self.n_workers * _slab_memory(self.files)

    @property
    def tensors(self) -> Iterator[PlacedTensor]:
        return (tensor for file in self.files for tensor in file.tensors)


def plan_write(
    model: ModelSource,
    target: Path,
    types: Mapping[str, GGMLQuantizationType],
    file_type: str,
    *,
    imatrix: Imatrix | None = None,
    metadata: Mapping[str, Value] | None = None,
    n_threads: int = 0,
    max_memory: int = 1 << 30,
    split_max_size: int = 0,
) -> WritePlan:
    """Place every byte of the result without reading or writing any; `n_threads` 0 means one for each core, `metadata` are more keys.

    Raises NeedsOption when a type needs an imatrix that is not given, BadOption when a tensor does not fit in a shard; CorruptFile when
    the imatrix is for another model.
    """
    number = FILE_TYPES[file_type_name(file_type)]
    if imatrix:
        imatrix.check_model(model.tensors)
    extra = {**(imatrix.metadata() if imatrix else {}), **(metadata or {})}
    files = lay_out(model, types, number, target, extra=extra, split_max_size=split_max_size)
    for file in files:
        for tensor in file.tensors:
            _check_imatrix(tensor, imatrix, file_type)
    n_workers = max(1, min(n_threads or n_cores(), max_memory // _slab_memory(files)))
    notes = (*model.notes, *_coverage(model, files, imatrix))
    return WritePlan(target, files, imatrix, n_workers, model.fingerprint, model.sources, notes)


def _coverage(model: ModelSource, files: Sequence[PlacedFile], imatrix: Imatrix | None) -> tuple[str, ...]:
    if imatrix is None:
        return ()
    quantized = [
        tensor.source.name
        for file in files
        for tensor in file.tensors
        if not tensor.is_copy and BLOCK[tensor.type][0] > 1
    ]
    return imatrix.coverage(quantized, [tensor.name for tensor in model.tensors])


def _cuts(tensor: PlacedTensor, size: int) -> Iterator[tuple[int, int]]:
    """Cut a tensor into runs of rows of about `size` weights, none across experts."""
    step = max(1, size // tensor.source.shape[-1])
    for first in range(0, tensor.source.n_rows, tensor.rows_per_expert):
        last = first + tensor.rows_per_expert
        for start in range(first, last, step):
            yield start, min(start + step, last)


def _slab_size(files: Sequence[PlacedFile]) -> int:
    n_elements = sum(tensor.source.n_elements for file in files for tensor in file.tensors)
    return min(MAX_SLAB, max(MIN_SLAB, n_elements // N_SLABS))


def _slab_memory(files: Sequence[PlacedFile]) -> int:
    """Return the bytes that one worker holds at most; a row is never cut, however long."""
    longest_row = max((tensor.source.shape[-1] for file in files for tensor in file.tensors), default=0)
    return max(_slab_size(files), longest_row) * BYTES_PER_WEIGHT


def _check_imatrix(tensor: PlacedTensor, imatrix: Imatrix | None, file_type: str) -> None:
    if tensor.is_copy:
        return
    if imatrix is not None and imatrix.weights(tensor.source) is not None:
        return
    is_edge = tensor.source.name in {"token_embd.weight", "output.weight"}
    needs = ggml.requires_imatrix(tensor.type) or (not is_edge and tensor.type.name in _needed_by(file_type))
    if needs:
        state = "has no entry for it" if imatrix else "is not given"
        raise (Unsupported if imatrix else NeedsOption)(
            f"{tensor.source.name} as {tensor.type.name} needs an importance matrix, which {state}; choose IQ4_XS or Q3_K_M, or compute one with mixcli imatrix"
        )


def _needed_by(file_type: str) -> set[str]:
    """Name the tensor types that llama-quantize refuses without an importance matrix, beyond those that cannot do without."""
    needed = {"IQ3_XXS", "IQ2_XXS", "IQ2_XS", "IQ2_S", "IQ1_M", "IQ1_S"}
    return needed | {"Q2_K"} if file_type_name(file_type) == "Q2_K_S" else needed


__all__ = ["Slab", "WritePlan", "plan_write"]
