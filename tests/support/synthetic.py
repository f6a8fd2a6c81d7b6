"""A model of the family of any size without a download: true shapes, tensor types and vocabulary, weights drawn at random.

    python -m tests.support.synthetic FILE [--shape mixtral-8x7b | mid | ...] [--layers N] [--type Q4_K_M] [--embd N] [--ff N]

Four layers of Mixtral 8x7B at Q4_K_M are 3.7 GB and take seconds: a few million normal weights are quantized once per type and width, and
tensors are tiled from these blocks, each expert from a place of its own. A pool has a prime number of blocks, so that no two rows of a
matrix are equal. The model computes at the speed of a real one and answers nonsense: logits are finite and spread as a language
model's are, and tokens choose their experts evenly. Needs the extra `dev` (mistral_common has the vocabulary).
"""

import argparse
import importlib.util
from collections.abc import Iterator, Mapping
from dataclasses import replace
from math import sqrt
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from bench.checkpoint import check_disk
from mixcli.pull.remote_shape import source_of
from profiles.models import ModelFacts, known_models
from quantize import ggml
from quantize.file_layout import PlacedFile, PlacedTensor, lay_out
from quantize.ggml_types import BLOCK, GGMLQuantizationType
from quantize.recipe import FILE_TYPES, choose_types, file_type_name
from quantize.source import ModelSource, Value, f32, flag, text, u32
from quantize.vocab.mistral_jinja import BY_VERSION
from quantize.vocab.spm import spm_vocabulary
from quantize.vocab.tekken import tekken_vocabulary

HEAD = 128  # elements, in all of Mistral's models
# about 400 MB at Q4_K_M: more layers and wider experts than the demo has
MID = replace(known_models()["mixtral-8x7b"], n_layer=12, n_embd=1024, n_ff=2048, n_head=8, n_head_kv=2)
TEKKEN = 131072  # tokens of the models since Nemo
LOGIT_SPREAD = 4.0  # the standard deviation of the logits; the likeliest of 32,000 tokens then has about a tenth of the mass

# weights in a block -> blocks of a pool: the largest prime that keeps it at four million weights
_N_BLOCKS = {256: 16381, 128: 32749, 64: 65521, 32: 131071, 1: 4194301}
_AT_ONCE = 1 << 16  # weights of a pool that are quantized at once


def shape_named(name: str, n_layer: int | None = None) -> ModelFacts:
    """Give the dimensions of "mid" or of a model of profiles/models.toml, with `n_layer` layers where that is said."""
    facts = MID if name == "mid" else known_models()[name]
    return replace(facts, n_layer=n_layer) if n_layer else facts


def resized(facts: ModelFacts, n_embd: int, n_ff: int) -> ModelFacts:
    """Give dimensions of another width; heads keep 128 elements, four share a key."""
    if n_embd % (4 * HEAD) or n_ff % 256 or n_embd <= 0 or n_ff <= 0:
        raise SystemExit(f"embd {n_embd}, ff {n_ff}: embd must be a multiple of {4 * HEAD}, ff of 256.")
    n_head = n_embd // HEAD
    return replace(facts, n_embd=n_embd, n_ff=n_ff, n_head=n_head, n_head_kv=n_head // 4)


def write_model(
    path: Path,
    facts: ModelFacts,
    file_type: str = "Q4_K_M",
    seed: int = 0,
    changes: Mapping[str, Value | None] = {},
) -> Path:
    """Write the model; the same arguments give the same bytes. `changes` replace metadata, None takes a key out.

    ValueError for a type that needs an imatrix.
    """
    placed = _layout(path, facts, file_type_name(file_type), changes)
    path.parent.mkdir(parents=True, exist_ok=True)
    check_disk(path.parent, placed.size)
    random = np.random.default_rng(seed)
    pools = _Pools(random)
    part = path.with_name(path.name + ".part")
    with part.open("wb", buffering=0) as file:
        file.write(placed.header)
        for tensor in placed.tensors:
            file.seek(tensor.offset)
            for piece in _pieces(tensor, pools, random):
                file.write(piece)
        file.truncate(placed.size)
    return part.replace(path)


def _layout(path: Path, facts: ModelFacts, file_type: str, changes: Mapping[str, Value | None]) -> PlacedFile:
    bare = source_of(facts)
    metadata = {
        **bare.metadata,
        **_vocabulary(facts.n_vocab),
        "general.name": text(f"synthetic, {facts.n_layer} layers of {facts.n_embd}"),
        f"{facts.architecture}.vocab_size": u32(facts.n_vocab),
        f"{facts.architecture}.rope.freq_base": f32(1e6),
        **changes,
    }
    metadata = {key: value for key, value in metadata.items() if value is not None}
    source = ModelSource(metadata, bare.tensors, bare.fingerprint)
    (placed,) = lay_out(source, choose_types(source, file_type), FILE_TYPES[file_type], path)
    return placed


def _vocabulary(n_vocab: int) -> dict[str, Value]:
    """Mistral's tokenizer of that size, and the chat template that came with it."""
    spec = importlib.util.find_spec("mistral_common")
    if spec is None or spec.origin is None:
        raise SystemExit(
            "mistral_common, which has Mistral's vocabularies, is not installed; run `make setup`."
        )
    data = Path(spec.origin).parent / "data"
    name = "tokenizer.model.v1" if n_vocab == 32000 else "mistral_instruct_tokenizer_240323.model.v3"
    if n_vocab == TEKKEN:
        vocabulary, name = tekken_vocabulary(data / "tekken_240911.json", n_vocab)[0], "tekken.v3"
    else:
        vocabulary = spm_vocabulary(data / name, n_vocab)
    return {
        **vocabulary.metadata(),
        "tokenizer.ggml.bos_token_id": u32(1),
        "tokenizer.ggml.eos_token_id": u32(2),
        "tokenizer.ggml.unknown_token_id": u32(0),
        "tokenizer.ggml.add_bos_token": flag(True),
        "tokenizer.chat_template": text(BY_VERSION[name[-2:]]),
    }


class _Pools:
    """Blocks of normal weights, by type and width; drawn when first asked for, and quantized by the library where they are used."""

    def __init__(self, random: np.random.Generator) -> None:
        self._random = random
        self._pools: dict[tuple[GGMLQuantizationType, float], _Pool] = {}

    def pool(self, type_: GGMLQuantizationType, spread: float) -> "_Pool":
        key = type_, spread
        if key not in self._pools:
            n_weights = BLOCK[type_][0]
            shape = (_N_BLOCKS[n_weights], n_weights)
            weights = self._random.standard_normal(shape, np.float32) * np.float32(spread)
            self._pools[key] = _Pool(type_, weights)
        return self._pools[key]


class _Pool:
    """The blocks of one type and width: a small model uses few of them, and to quantize takes longest."""

    def __init__(self, type_: GGMLQuantizationType, weights: NDArray[np.float32]) -> None:
        self._type, self._weights = type_, weights
        self._at_once = _AT_ONCE // BLOCK[type_][0]  # blocks
        self._bytes = bytearray(len(weights) * BLOCK[type_][1])
        self._missing = set(range(-(-len(weights) // self._at_once)))

    def __len__(self) -> int:
        return len(self._bytes)

    def piece(self, at: int, n_bytes: int) -> memoryview:
        """Return so many bytes from a block on, or fewer where the pool ends."""
        end = min(at + n_bytes, len(self._bytes))
        n_made = self._at_once * BLOCK[self._type][1]  # bytes
        for n in self._missing.intersection(range(at // n_made, -(-end // n_made))):
            weights = self._weights[n * self._at_once : (n + 1) * self._at_once]
            made = ggml.quantize_chunk(self._type, weights).reshape(-1).data
            self._bytes[n * n_made : n * n_made + len(made)] = made
            self._missing.remove(n)
        return memoryview(self._bytes)[at:end]


def _pieces(tensor: PlacedTensor, pools: _Pools, random: np.random.Generator) -> Iterator[memoryview]:
    """Give a tensor's bytes, piece by piece: every matrix of a stack begins at another block of its pool."""
    shape = tensor.source.shape
    if len(shape) == 1:
        yield np.ones(shape, np.float32).data.cast("B")
        return
    pool = pools.pool(tensor.type, _spread(tensor.source.name, shape[-1]))
    n_matrices = shape[0] if len(shape) > 2 else 1
    size = BLOCK[tensor.type][1]
    for _ in range(n_matrices):
        at, left = int(random.integers(len(pool) // size)) * size, tensor.n_bytes // n_matrices
        while left:
            piece = pool.piece(at, left)
            yield piece
            at, left = 0, left - len(piece)


def _spread(name: str, n_cols: int) -> float:
    """Give the weights' standard deviation: activations keep about the size that they have."""
    if name == "token_embd.weight":
        return 1.0
    return (LOGIT_SPREAD if name == "output.weight" else 1.0) / sqrt(n_cols)


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("file", type=Path)
    parser.add_argument("--shape", default="mixtral-8x7b", choices=("mid", *known_models()))
    parser.add_argument("--layers", type=int, help="instead of as many as that model has")
    parser.add_argument("--type", default="Q4_K_M", choices=FILE_TYPES)
    parser.add_argument("--embd", type=int, help="another width, a multiple of 512")
    parser.add_argument("--ff", type=int, help="other experts, a multiple of 256")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    facts = shape_named(options.shape, options.layers)
    if options.embd or options.ff:
        facts = resized(facts, options.embd or facts.n_embd, options.ff or facts.n_ff)
    path = write_model(options.file, facts, options.type, options.seed)
    print(f"{path}: {path.stat().st_size / 2**30:.2f} GiB")


if __name__ == "__main__":
    main()
