"""What errors cost: the expected squared change of the residual stream, relative to the stream's own square, summed over half layers.

A squared error of the outputs of attn_output and ffn_down costs mean(1/|r|^2), r being the residual stream after that half layer. An error of
gate or up passes through the activation and through ffn_down: row i counts |W_down[:,i]|^2 times E[(u silu'(g))^2/|r|^2] (gate) or
E[silu(g)^2/|r|^2] (up). For mixtures all are times the squared router weight, over the tokens that reach an expert.
"""

import re

import numpy as np
from numpy.typing import NDArray

from quantize.errors import CorruptFile, MalformedFile
from quantize.tailor.error_table import ErrorTable, TensorErrors
from quantize.tailor.statistics import Statistics

_INNER = re.compile(r"ffn_(gate_up|gate|up)(?=[_.])")


def losses(table: ErrorTable, statistics: Statistics) -> dict[str, NDArray[np.float64]]:
    """Return what each type of the table costs each tensor, float64 (n_types,); infinite where a type does not fit."""
    return {name: _summed(one, _row_costs(one, table, statistics)) for name, one in table.tensors.items()}


def plain_losses(table: ErrorTable) -> dict[str, NDArray[np.float64]]:
    """Return the sums of importance-weighted errors alone: what is not to be used, and what tests compare with."""
    return {name: _summed(one, np.ones((one.errors.shape[1], 1))) for name, one in table.tensors.items()}


def _summed(one: TensorErrors, costs: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the errors of all rows, times what they cost, (n_matrices, n_rows or 1).

    The measured rows of a matrix stand for the others in proportion to what an error of those costs: a few rows have much of the sum.
    """
    measured, shares = costs, np.full(len(costs), float(one.step))
    if costs.shape[1] > 1:
        measured = costs[:, :: one.step]
        known = measured.sum(axis=1)
        np.divide(costs.sum(axis=1), known, out=shares, where=known > 0)
    fits = np.isfinite(one.errors[:, 0, 0])
    found = np.full(len(fits), np.inf)
    found[fits] = (one.errors[fits].astype(np.float64) * measured).sum(axis=2) @ shares
    return found


def _row_costs(one: TensorErrors, table: ErrorTable, statistics: Statistics) -> NDArray[np.float64]:
    """Return what a squared error of each row costs, (n_matrices, n_rows or 1)."""
    rows = statistics.rows(one.name)
    match = _INNER.search(one.name)
    if match is None:
        return rows
    down = table.tensors.get(_INNER.sub("ffn_down", one.name))
    if down is None:
        raise MalformedFile(f"the model has {one.name} without its ffn_down")
    through = down.step * down.squares.astype(np.float64)
    if match[1] == "gate_up":
        through = np.tile(through, (1, 2))
    if rows.shape != through.shape:
        raise CorruptFile(
            f"the statistics have {rows.shape[1]:,} rows of {one.name}, but the model has {through.shape[1]:,}; compute them again"
        )
    return rows * through


__all__ = ["losses", "plain_losses"]
