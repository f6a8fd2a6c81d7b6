"""Measure what every candidate type does to rows: quantize some of each matrix with the real kernels and weigh the squared errors by column.

The table does not depend on any budget, nor on what an error costs, so that one serves for files of all sizes. It is written as it grows: a
killed run resumes after the last whole tensor.
"""

import json
import zlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, TypeVar

import numpy as np
from numpy.typing import NDArray

from quantize.errors import MalformedFile
from quantize.ggml_types import GGMLQuantizationType
from quantize.imatrix import Imatrix
from quantize.parallel import in_parallel, n_cores
from quantize.source import TensorSource
from quantize.tailor.row_errors import RowErrors
from quantize.tailor.statistics import Statistics
from quantize.writer import Supply

T = TypeVar("T")
# Every eighth row. Of SmolLM2's matrices that are 100 to 200, and the loss of a matrix is 6 % off that of all rows, at worst 25 %; types that are
# chosen by it lose 0.2 % more than by all rows (0.9 % at 3.2 bits a weight), by every sixteenth 0.3 to 1.9 %. The number of rows counts, not their share, so a stack of
# experts with Mixtral's shapes needs fewer: its losses are 2 to 4 % off.
STEP = 8
ENOUGH, ENOUGH_OF_EACH = 2048, 64  # rows of a stack, and of each expert


@dataclass(frozen=True)
class TensorErrors:
    """The errors of one tensor: float32 (n_types, n_matrices, n_measured), for each measured row the sum of squared errors times mean squared inputs.

    Every `step`th row of a matrix is measured, from the first on; a type that does not fit has infinite errors in all of them.
    `squares` (n_matrices, n_columns) are the squares of the weights of each column, summed over these rows.
    """

    name: str
    step: int
    errors: NDArray[np.float32]
    squares: NDArray[np.float32]


@dataclass(frozen=True)
class ErrorTable:
    """The errors of all tensors that were asked for, in the columns of `types`."""

    types: tuple[GGMLQuantizationType, ...]
    tensors: Mapping[str, TensorErrors]


def measure_errors(
    tensors: Sequence[TensorSource],
    types: Sequence[GGMLQuantizationType],
    statistics: Statistics,
    imatrix: Imatrix,
    path: Path,
    identity: str,
    *,
    n_threads: int = 0,
    progress: Callable[[int, int], None] | None = None,
    supply: Supply | None = None,
) -> ErrorTable:
    """Return the table, continued from what `path` has of the same `identity`; a type that does not fit a tensor has infinite errors.

    `progress` gets weights done and in total; with `supply` the source comes file by file. Raises CorruptFile for weights that are not finite.
    """
    table = _TableFile(path, identity, types)
    found = table.read()
    todo = [tensor for tensor in tensors if tensor.name not in found]
    total = sum(tensor.n_elements for tensor in tensors)
    done = total - sum(tensor.n_elements for tensor in todo)
    known = {imatrix.weights(tensor) is not None for tensor in todo}
    row_errors = RowErrors(types, known, sum(tensor.n_elements for tensor in todo) // STEP)
    tasks = [(tensor, number) for tensor in todo for number in range(_n_matrices(tensor))]

    def work(task: int) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        tensor, number = tasks[task]
        columns = statistics.columns(tensor.name)[number].astype(np.float32)
        weights = imatrix.weights(tensor)
        rows = measured_rows(tensor, number)
        errors = row_errors(rows, columns, None if weights is None else weights[number])
        return errors, np.square(rows).sum(axis=0)

    waiting: dict[str, dict[int, tuple[NDArray[np.float32], NDArray[np.float32]]]] = {}
    with table.appending() as file:
        for task, parts in _in_rounds(work, tasks, n_threads or n_cores(), supply):
            tensor, number = tasks[task]
            mine = waiting.setdefault(tensor.name, {})
            mine[number] = parts
            done += tensor.n_elements // _n_matrices(tensor)
            if progress:
                progress(done, total)
            if len(mine) == _n_matrices(tensor):
                del waiting[tensor.name]
                errors, squares = zip(*(mine[i] for i in range(len(mine))), strict=True)
                one = TensorErrors(tensor.name, step_of(tensor), np.stack(errors, axis=1), np.stack(squares))
                table.append(file, one)
                found[tensor.name] = one
    return ErrorTable(tuple(types), {tensor.name: found[tensor.name] for tensor in tensors})


def _in_rounds(
    work: Callable[[int], T], tasks: Sequence[tuple[TensorSource, int]], n_workers: int, supply: Supply | None
) -> Iterator[tuple[int, T]]:
    """Run all tasks, at once or by the file that a matrix is read from, and give each with its result."""
    if supply is None:
        yield from in_parallel(work, range(len(tasks)), n_workers)
        return
    by_file: dict[Path | None, list[int]] = {}
    for task, (tensor, number) in enumerate(tasks):
        path = tensor.file(number * tensor.shape[-2]) if tensor.file else None
        by_file.setdefault(path, []).append(task)
    yield from in_parallel(work, by_file.pop(None, []), n_workers)
    for path in supply(sorted(path for path in by_file if path)):
        yield from in_parallel(work, by_file[path], n_workers)


def _n_matrices(tensor: TensorSource) -> int:
    return tensor.shape[-3] if len(tensor.shape) > 2 else 1


def step_of(tensor: TensorSource) -> int:
    """Return which rows of each matrix are measured: every so many, from the first on."""
    n_rows, n = tensor.shape[-2], _n_matrices(tensor)
    return max(STEP, min(n * n_rows // ENOUGH, n_rows // ENOUGH_OF_EACH)) if n > 1 else STEP


def measured_rows(tensor: TensorSource, number: int) -> NDArray[np.float32]:
    """Return the rows of one matrix of a tensor that are measured; what lies between them is not read."""
    n_rows, n_columns = tensor.shape[-2:]
    first, step = number * n_rows, step_of(tensor)
    found = np.empty((-(-n_rows // step), n_columns), np.float32)
    for i in range(len(found)):
        found[i] = tensor.read(first + i * step, first + i * step + 1)[0]
    if not np.isfinite(found).all():
        raise MalformedFile(f"{tensor.where} has weights that are NaN or infinite")
    return found


class _TableFile:
    """The file of a table: a line of JSON, then for each tensor a line of JSON and its values."""

    def __init__(self, path: Path, identity: str, types: Sequence[GGMLQuantizationType]) -> None:
        self._path = path
        head = {
            "identity": identity,
            "types": [type_.name for type_ in types],
            "rows": [STEP, ENOUGH, ENOUGH_OF_EACH],
        }
        self._head = json.dumps(head).encode() + b"\n"

    def read(self) -> dict[str, TensorErrors]:
        """Return the whole tensors that the file has, and cut off what is behind them; a file of another identity is begun again."""
        found: dict[str, TensorErrors] = {}
        end = 0
        try:
            with self._path.open("rb") as file:
                if file.readline(1 << 20) == self._head:
                    end = file.tell()
                    for one in _records(file):
                        found[one.name] = one
                        end = file.tell()
        except FileNotFoundError:
            pass
        with self._path.open("ab") as file:
            file.truncate(end)
            if not end:
                file.write(self._head)
        return found

    def appending(self) -> BinaryIO:
        return self._path.open("ab")

    @staticmethod
    def append(file: BinaryIO, one: TensorErrors) -> None:
        """Write a tensor's errors, flushed, so that a kill loses only what is being measured."""
        data = one.errors.tobytes() + one.squares.tobytes()
        head = {
            "name": one.name,
            "step": one.step,
            "errors": one.errors.shape,
            "squares": one.squares.shape,
            "crc": zlib.crc32(data),
        }
        file.write(json.dumps(head).encode() + b"\n" + data)
        file.flush()


def _records(file: BinaryIO) -> Iterator[TensorErrors]:
    """Yield the whole records of a file, until one that was cut off."""
    while line := file.readline(1 << 16):
        try:
            head = json.loads(line)
            shapes = [tuple(map(int, head[key])) for key in ("errors", "squares")]
            sizes = [int(np.prod(shape, dtype=np.int64)) for shape in shapes]
            data = file.read(4 * sum(sizes))
            if zlib.crc32(data) != head["crc"]:
                return
            values = np.frombuffer(data, np.float32)
            first, second = (
                part.reshape(shape) for part, shape in zip(np.split(values, sizes[:1]), shapes, strict=True)
            )
            yield TensorErrors(str(head["name"]), int(head["step"]), first, second)
        except (ValueError, TypeError, KeyError, RecursionError):
            return


__all__ = ["ErrorTable", "TensorErrors", "measure_errors", "measured_rows", "step_of"]
