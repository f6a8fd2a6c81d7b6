"""Sum the squares of what goes into a model's matrices, column by column and expert by expert.

The order of the float32 additions is that of llama-imatrix (collect_imatrix in tools/imatrix/imatrix.cpp): row after row, and for a stack
of experts all tokens of the first chosen expert before those of the second. Equal inputs so give equal sums, to the last bit.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from mixcli.errors import IntegrityError

Floats = NDArray[np.float32]
_OF_EXPERTS = re.compile(r"blk\.(\d+)\..*_exps\.weight")
BLOCK = 1 << 16  # squares that are made and added at a time


@dataclass
class Importance:
    """Sums of squares (n_matrices, n_columns), and how many rows they are of: one count for each expert, else one for all."""

    sums: Floats
    counts: NDArray[np.int64]


@dataclass(frozen=True)
class _Added:
    """What was added last: an input, by which experts, what the sums were before, and the entry that has them now."""

    values: Floats
    experts: NDArray[np.int32] | None
    before: Floats
    entry: Importance

    def is_same(self, values: Floats, experts: NDArray[np.int32] | None, sums: Floats) -> bool:
        """Return whether adding this input to `sums` is the same addition: then the result is there already."""
        if values is not self.values or (experts is None) != (self.experts is None):
            return False
        if experts is not None and not np.array_equal(experts, self.experts):  # type: ignore[arg-type]
            return False
        return np.array_equal(sums, self.before)


@dataclass
class ImportanceSums:
    """The sums of all matrices of a model, by the name of the weights.

    Matrices that share their inputs (query, key and value; gate and up) have the same sums, which are computed once.
    """

    entries: dict[str, Importance] = field(default_factory=dict)
    _last: _Added | None = None

    def add(self, weight: str, shape: tuple[int, int], values: Floats) -> None:
        """Add an input (n3, n2, rows, columns) of a matrix, or of a stack of `shape` (n2, n3) that each input has one of.

        Raises IntegrityError for values that are not finite.
        """
        n_matrices = shape[0] * shape[1]
        entry = self._entry(weight, n_matrices, values.shape[-1], 1)
        entry.counts += values[..., 0].size // n_matrices
        if n_matrices == 1:
            if self._is_copied(entry, values, None):
                return
            _add_squares(entry.sums[0], values.reshape(-1, values.shape[-1]))
        for i3, group in enumerate(values if n_matrices > 1 else ()):
            for i2, rows in enumerate(group):
                _add_squares(entry.sums[i3 % shape[1] * shape[0] + i2 % shape[0]], rows)
        _check(weight, entry.sums)

    def add_experts(self, weight: str, n_expert: int, values: Floats, experts: NDArray[np.int32]) -> None:
        """Add an input (1, tokens, experts used or 1, columns) of a stack of experts, which are chosen by `experts` (tokens, experts used).

        Raises IntegrityError for values that are not finite.
        """
        _, n_tokens, n_inputs, n_columns = values.shape
        entry = self._entry(weight, n_expert, n_columns, n_expert)
        chosen = experts.T.ravel()  # all tokens' first experts, then the second ones
        entry.counts += np.bincount(chosen, minlength=n_expert)
        if self._is_copied(entry, values, experts):
            return
        inputs = values.reshape(-1, n_columns)
        places = (np.arange(n_tokens) * n_inputs + np.arange(experts.shape[1])[:, None] % n_inputs).ravel()
        for expert in np.unique(chosen):
            _add_squares(entry.sums[expert], inputs, places[chosen == expert])
        _check(weight, entry.sums)

    def add_sums(self, name: str, sums: NDArray[np.float64], counts: NDArray[np.int64]) -> None:
        """Add sums (n_matrices, n) that were made elsewhere, and the rows that they are of: one count for each matrix, or one for all.

        Raises IntegrityError for values that are not finite.
        """
        entry = self._entry(name, sums.shape[0], sums.shape[1], len(counts))
        entry.sums += sums.astype(np.float32)
        entry.counts += counts
        _check(name, entry.sums)

    def _entry(self, weight: str, n_matrices: int, n_columns: int, n_counts: int) -> Importance:
        if weight not in self.entries:
            self.entries[weight] = Importance(
                np.zeros((n_matrices, n_columns), np.float32), np.zeros(n_counts, np.int64)
            )
        entry = self.entries[weight]
        entry.sums = entry.sums.reshape(
            n_matrices, n_columns
        )  # a file has the matrices of one count in one row
        return entry

    def _is_copied(self, entry: Importance, values: Floats, experts: NDArray[np.int32] | None) -> bool:
        """Copy the sums that the same addition led to before; False where it is another one, which the caller makes."""
        last = self._last
        if last is not None and last.is_same(values, experts, entry.sums):
            entry.sums[...] = last.entry.sums
            return True
        self._last = _Added(values, experts, entry.sums.copy(), entry)
        return False


def _add_squares(total: Floats, rows: Floats, chosen: NDArray[np.int64] | None = None) -> None:
    """Add the squares of rows, or of the `chosen` ones, to `total`, one after the other: block by block, which stays in the cache."""
    n_rows = len(rows) if chosen is None else len(chosen)
    n_block = max(1, BLOCK // rows.shape[1])
    block = np.empty((min(n_rows, n_block) + 1, rows.shape[1]), np.float32)
    for start in range(0, n_rows, n_block):
        stop = min(start + n_block, n_rows)
        part = block[: stop - start + 1]
        squares = part[1:]
        if chosen is None:
            np.multiply(rows[start:stop], rows[start:stop], out=squares)
        else:
            np.take(rows, chosen[start:stop], axis=0, out=squares, mode="clip")  # "raise" would buffer it
            np.multiply(squares, squares, out=squares)
        part[0] = total
        np.add.reduce(part, axis=0, out=total)


def n_chunks_of(entries: Mapping[str, Importance], n_ctx: int) -> int:
    """Return how many chunks of `n_ctx` tokens the sums are of, as llama-imatrix counts them: by the most rows that any count has."""
    return max((int(entry.counts.max()) for entry in entries.values()), default=0) // n_ctx


@dataclass(frozen=True)
class ExpertCoverage:
    """How many of a text's tokens one expert of a layer saw."""

    layer: int
    expert: int
    n_tokens: int

    @property
    def words(self) -> str:
        tokens = "1 token" if self.n_tokens == 1 else f"{self.n_tokens:,} tokens"
        return f"expert {self.expert} of layer {self.layer}: {tokens}"


def coverage(entries: Mapping[str, Importance]) -> list[ExpertCoverage]:
    """Return the tokens of every expert of every layer, fewest first; empty for a dense model."""
    layers: dict[int, NDArray[np.int64]] = {}
    for name, entry in entries.items():
        if match := _OF_EXPERTS.fullmatch(name):
            layers[int(match[1])] = entry.counts
    found = [
        ExpertCoverage(layer, expert, int(n))
        for layer, counts in layers.items()
        for expert, n in enumerate(counts)
    ]
    return sorted(found, key=lambda one: (one.n_tokens, one.layer, one.expert))


def smoothed(entries: Mapping[str, Importance], n_tokens: int) -> dict[str, Importance]:
    """Return the sums with every expert that saw fewer than `n_tokens` brought to that number by average tokens of its layer.

    An expert with c tokens gets n_tokens - c times the mean square of all tokens of all experts of its matrix, so that few tokens do not
    decide alone which of its columns matter.
    """
    return {name: _smoothed(entry, n_tokens) for name, entry in entries.items()}


def _smoothed(entry: Importance, n_tokens: int) -> Importance:
    missing = np.maximum(n_tokens - entry.counts, 0)
    n_all = int(entry.counts.sum())
    if len(entry.counts) < 2 or not missing.any() or not n_all:
        return entry
    mean = entry.sums.sum(axis=0, dtype=np.float64) / n_all
    sums = entry.sums + (missing[:, None] * mean).astype(np.float32)
    return Importance(sums, entry.counts + missing)


def _check(weight: str, sums: Floats) -> None:
    if not np.isfinite(sums).all():
        raise IntegrityError(
            f"the model computes values that are not finite in front of {weight}; the file is damaged or in a type that overflows: "
            "check it with `mixcli verify`, or use a BF16 or Q8_0 file"
        )
