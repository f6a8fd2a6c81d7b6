"""Split the projection of multi-head latent attention that makes keys and values of the latent.

llama.cpp multiplies a head's query by its part of the projection instead of making keys, and values after attention. So it wants the two
halves of kv_b_proj apart, one matrix for each head, that of the keys transposed.
"""

from dataclasses import replace

import numpy as np

from quantize.source import TensorSource
from quantize.sources.hparams import LatentAttention
from quantize.sources.rows import Float32s


def split_kv(tensor: TensorSource, n_head: int, mla: LatentAttention) -> tuple[TensorSource, TensorSource]:
    """Return attn_k_b (n_head, kv_rank, head_nope) and attn_v_b (n_head, head_v, kv_rank) of (n_head * (head_nope + head_v), kv_rank)."""
    height = mla.head_nope + mla.head_v

    def keys(start: int, stop: int) -> Float32s:
        rows = np.empty((stop - start, mla.head_nope), np.float32)
        for head in range(start // mla.kv_rank, -(-stop // mla.kv_rank)):
            first = head * mla.kv_rank
            begin, end = max(start, first), min(stop, first + mla.kv_rank)
            matrix = tensor.read(head * height, head * height + mla.head_nope)
            rows[begin - start : end - start] = matrix.T[begin - first : end - first]
        return rows

    def values(start: int, stop: int) -> Float32s:
        rows = np.empty((stop - start, mla.kv_rank), np.float32)
        for head in range(start // mla.head_v, -(-stop // mla.head_v)):
            first = head * mla.head_v
            begin, end = max(start, first), min(stop, first + mla.head_v)
            shift = (head + 1) * mla.head_nope  # the rows of keys before these of values
            rows[begin - start : end - start] = tensor.read(begin + shift, end + shift)
        return rows

    return (
        replace(tensor, shape=(n_head, mla.kv_rank, mla.head_nope), read=keys),
        replace(tensor, shape=(n_head, mla.head_v, mla.kv_rank), read=values),
    )


__all__ = ["split_kv"]
