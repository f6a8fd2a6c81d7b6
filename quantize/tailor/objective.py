"""What errors cost: the expected squared change of the residual stream, relative to the stream's own square, summed over half layers.

A squared error of the outputs of attn_output and ffn_down costs mean(1/|r|^2), r being the residual stream after that half layer. An error of
gate or up passes through the activation and through ffn_down: row i counts |W_down[:,i]|^2 times E[(u silu'(g))^2/|r|^2] (gate) or
E[silu(g)^2/|r|^2] (up). For mixtures all are times the squared router weight, over the tokens that reach an expert.
"""

import re

import numpy as np
from numpy.typing import NDArray

from quantize.errors import CorruptFile
from quantize.tailor.error_table import STEP, ErrorTable, TensorErrors
from quantize.tailor.statistics import Statistics

_INNER = re.compile(r"ffn_(gate_up|gate|up)(?=[_.])")


def losses(table: ErrorTable, statistics: Statistics) -> dict[str, NDArray[np.float64]]:
    """Return what each type of the table costs each tensor, float64 (n_types,); infinite where a type does not fit."""
    return {name: _summed(one, _row_costs(one, table, statistics)) for name, one in table.tensors.items()}


def plain_losses(table: ErrorTable) -> dict[str, NDArray[np.float64]]:
    """Return the sums of importance-weighted errors alone: what is not to be used, and what tests compare with."""
    return {name: _summed(one, np.ones((1, 1))) for name, one in table.tensors.items()}


def _summed(one: TensorErrors, costs: NDArray[np.float64]) -> NDArray[np.float64]:
    return np.asarray(STEP * (one.errors.astype(np.float64) * costs).sum(axis=(1, 2)))


def _row_costs(one: TensorErrors, table: ErrorTable, statistics: Statistics) -> NDArray[np.float64]:
    """Return what a squared error of each sampled row costs, (n_matrices, n_sampled or 1)."""
    rows = statistics.rows(one.name)
    match = _INNER.search(one.name)
    if match is None:
        return rows
    down = table.tensors.get(_INNER.sub("ffn_down", one.name))
    if down is None:
        raise CorruptFile(f"the model has {one.name} without its ffn_down; download it again.")
    through = STEP * down.squares.astype(np.float64)
    if match[1] == "gate_up":
        through = np.tile(through, (1, 2))
    if rows.shape != through.shape:
        raise CorruptFile(
            f"the statistics have {rows.shape[1]:,} rows of {one.name}, but the model has {through.shape[1]:,}; compute them again."
        )
    return (rows * through)[:, ::STEP]


__all__ = ["losses", "plain_losses"]
