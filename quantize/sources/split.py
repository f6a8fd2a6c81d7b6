"""Cut tensors into the parts that llama.cpp reads."""

from dataclasses import replace

import numpy as np

from quantize.source import TensorSource
from quantize.sources.hparams import LatentAttention
from quantize.sources.rows import Float32s


def split_kv(tensor: TensorSource, n_head: int, mla: LatentAttention) -> tuple[TensorSource, TensorSource]:
    """Cut the projection that makes keys and values of the latent, (n_head * (head_nope + head_v), kv_rank).

    llama.cpp multiplies a head's query by its part of the projection instead of making keys, and makes values after attention. So it
    wants both apart, one matrix for each head: attn_k_b (n_head, kv_rank, head_nope), transposed, and attn_v_b (n_head, head_v, kv_rank).
    """
    height = mla.head_nope + mla.head_v

    def keys(start: int, stop: int) -> Float32s:
        rows = np.empty((stop - start, mla.head_nope), np.float32)
        for head in range(start // mla.kv_rank, -(-stop // mla.kv_rank)):
            first = head * mla.kv_rank
            begin, end = max(start, first), min(stop, first + mla.kv_rank)
            matrix = tensor.read(head * height, head * height + mla.head_nope)
            rows[begin - start : end - start] = matrix.T[begin - first : end - first]
        return rows

    values = _rows_of_matrices(tensor, n_head, height, slice(mla.head_nope, height))
    return replace(tensor, shape=(n_head, mla.kv_rank, mla.head_nope), read=keys), values


def split_gate_up(tensor: TensorSource) -> tuple[TensorSource, TensorSource]:
    """Cut fused experts, (n_expert, 2 * n_ff, n_embd), into the stacks of gate and up, (n_expert, n_ff, n_embd) each."""
    n_expert, height, _ = tensor.shape
    n_ff = height // 2
    gate, up = slice(0, n_ff), slice(n_ff, height)
    return _rows_of_matrices(tensor, n_expert, height, gate), _rows_of_matrices(tensor, n_expert, height, up)


def _rows_of_matrices(tensor: TensorSource, n: int, height: int, part: slice) -> TensorSource:
    """Return the same rows of each of `n` matrices of `height` rows, which lie below each other, as a stack."""
    n_rows, n_columns = part.stop - part.start, tensor.shape[-1]

    def read(start: int, stop: int) -> Float32s:
        rows = np.empty((stop - start, n_columns), np.float32)
        for matrix in range(start // n_rows, -(-stop // n_rows)):
            first = matrix * n_rows
            begin, end = max(start, first), min(stop, first + n_rows)
            shift = matrix * height + part.start - first
            rows[begin - start : end - start] = tensor.read(begin + shift, end + shift)
        return rows

    return replace(tensor, shape=(n, n_rows, n_columns), read=read)


__all__ = ["split_gate_up", "split_kv"]
