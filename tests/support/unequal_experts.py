"""A Mixtral-like model whose experts differ, made of SmolLM2 rewritten off the 4-bit grid (off_grid.py): four experts, two used.

Each expert is a part of the dense feed-forward layer: the hidden channels that matter most to all texts, and those that matter most to
its own texts, each scaled differently, in another order, and with its outputs rotated a little in pairs. The router is a linear
discriminant of the texts (languages, code), from what the dense model computes on them. So every matrix of a stack is another one, tokens
go where their language goes, and the model still speaks.
"""

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from mixcli.insight.compute.chunks import ChunkReader, cut
from mixcli.insight.pieces import CALIBRATION
from mixcli.llama.observers import Matmul, Matmuls
from mixcli.prompts.base_model import format_of
from quantize.source import u32
from tests.support.off_grid import N_LAYER, N_VOCAB, Matrix, RewrittenModel, off_grid
from tests.support.quality import loaded, part_of, reading_of

GROUPS = (("english", "chat"), ("french", "italian"), ("german", "spanish"), ("code",))  # an expert for each
N_USED = 2
PARTS = ("gate", "up", "down")
N_SHARED, N_OWN = 640, 128  # hidden channels of an expert: those of all, and its own
OWN_GAIN = 1.5  # an expert has about half of the weight of an answer
TURN = 0.1  # radians
SPREAD = 2.0  # standard deviation of the router's logits
N_CTX, N_CHARACTERS = 64, 350  # of a group's texts, enough for means


def write_unequal_experts(
    source: Path, path: Path, seed: int = 5, layers: Sequence[int] = range(N_LAYER), n_vocab: int = N_VOCAB
) -> Path:
    """Write the mixture made of SmolLM2's file in BF16."""
    dense = off_grid(source, layers=layers, n_vocab=n_vocab)
    return mixture_of(dense, dense.write(path), seed).write(path)


def mixture_of(dense: RewrittenModel, path: Path, seed: int = 5) -> RewrittenModel:
    """Return the mixture made of a dense model, which `path` has as a file."""
    return _mixture(dense, _activity_of(path), seed)


class _Activity:
    """The MatmulObserver that keeps, by layer and group, what goes into the feed-forward layer and what its hidden channels are.

    The first token of a chunk, which attention makes unlike all others, does not count.
    """

    def __init__(self) -> None:
        self.group = 0
        self.inputs: dict[tuple[int, int], Matrix] = {}
        self.hidden: dict[tuple[int, int], Matrix] = {}

    def accepts(self, weight: str, n_rows: int, *, is_stack: bool) -> bool:
        return weight.endswith(("ffn_up.weight", "ffn_down.weight"))

    def observe(self, matmul: Matmul) -> None:
        n_columns = matmul.values.shape[-1]
        rows = matmul.values.reshape(-1, N_CTX, n_columns)[:, 1:].reshape(-1, n_columns)
        kept = self.inputs if "ffn_up" in matmul.weight else self.hidden
        kept[int(matmul.weight.split(".")[1]), self.group] = rows.copy()


def _activity_of(path: Path) -> _Activity:
    """Read a chunk of each text with a dense model."""
    texts = {piece.name: piece for piece in part_of(CALIBRATION, N_CHARACTERS)}
    found = _Activity()
    with loaded(reading_of(path, tuple(texts.values()), N_CTX), Matmuls(found)) as (model, context):
        encode = format_of(model).tokenizer.encode
        for group, names in enumerate(GROUPS):
            found.group = group
            chunks = [cut(encode(texts[name].text), N_CTX, model.vocab)[0] for name in names]
            for _ in ChunkReader(context).read(chunks):
                pass
    return found


def _mixture(dense: RewrittenModel, activity: _Activity, seed: int) -> RewrittenModel:
    random = np.random.default_rng(seed)
    weights = {
        name: values for name, values in dense.weights.items() if ".ffn_" not in name or "norm" in name
    }
    for layer in range(sum(name.endswith("ffn_up.weight") for name in dense.weights)):
        old = [dense.weights[f"blk.{layer}.ffn_{part}.weight"] for part in PARTS]
        hidden = [activity.hidden[layer, group] for group in range(len(GROUPS))]
        experts = [_expert(old, hidden, group, random) for group in range(len(GROUPS))]
        for part, values in zip(PARTS, zip(*experts, strict=True), strict=True):
            weights[f"blk.{layer}.ffn_{part}_exps.weight"] = np.stack(values)
        inputs = [activity.inputs[layer, group] for group in range(len(GROUPS))]
        weights[f"blk.{layer}.ffn_gate_inp.weight"] = _router(inputs)
    sizes = {
        "expert_count": len(GROUPS),
        "expert_used_count": N_USED,
        "feed_forward_length": N_SHARED + N_OWN,
    }
    return RewrittenModel(
        {**dense.metadata, **{f"llama.{key}": u32(value) for key, value in sizes.items()}}, weights
    )


def _expert(
    old: Sequence[Matrix], hidden: Sequence[Matrix], group: int, random: np.random.Generator
) -> tuple[Matrix, Matrix, Matrix]:
    """Return gate, up and down of a group's expert."""
    gate, up, down = old
    sizes = np.linalg.norm(down, axis=0)
    matter = [np.sqrt((one.astype(np.float64) ** 2).mean(axis=0)) * sizes for one in hidden]
    shared = np.argsort(-np.max(matter, axis=0), kind="stable")[:N_SHARED]
    mine = matter[group].copy()
    mine[shared] = 0
    own = np.argsort(-mine, kind="stable")[:N_OWN]
    channels = random.permutation(np.concatenate([shared, own]))
    scale = np.exp(random.uniform(-0.5, 0.5, len(channels))).astype(np.float32)
    gain = np.where(np.isin(channels, own), OWN_GAIN, 1).astype(np.float32)
    return gate[channels], up[channels] * scale[:, None], _turned(down[:, channels] * (gain / scale), random)


def _turned(rows: Matrix, random: np.random.Generator) -> Matrix:
    """Return rows that are rotated a little in pairs."""
    pairs = random.permutation(len(rows)).reshape(-1, 2)
    angles = random.uniform(-TURN, TURN, len(pairs)).astype(np.float32)[:, None]
    first, second = rows[pairs[:, 0]], rows[pairs[:, 1]]
    turned = np.empty_like(rows)
    turned[pairs[:, 0]] = np.cos(angles) * first - np.sin(angles) * second
    turned[pairs[:, 1]] = np.sin(angles) * first + np.cos(angles) * second
    return turned


def _router(inputs: Sequence[Matrix]) -> Matrix:
    """Return (experts, columns): the direction that tells each group's inputs from the others', with equal logits at their mean."""
    mean = np.mean([one.mean(axis=0) for one in inputs], axis=0)
    spread = np.mean([one.var(axis=0) for one in inputs], axis=0) + 1e-6
    rows = np.array([(one.mean(axis=0) - mean) / spread for one in inputs])
    rows -= np.outer(rows @ mean / (mean @ mean), mean)
    logits = np.concatenate(inputs) @ rows.T
    return np.asarray(rows * (SPREAD / logits.std(axis=0))[:, None], np.float32)
