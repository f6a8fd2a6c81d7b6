"""ModelShape: the facts of a model that the planner needs, from a GGUF's metadata and tensor list."""

import re
from collections import Counter
from collections.abc import Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from functools import cached_property, lru_cache

from profiles.dimensions import Dimensions, Numbers, read_dimensions
from profiles.errors import BadModel

# what a tensor does -> a part of its name; the first that matches
CLASSES = (
    ("norms", "_norm."),
    ("experts", "_exps."),
    ("shared experts", "_shexp."),
    ("router", "ffn_gate_inp."),
    ("router", "exp_probs_b."),
    ("feed forward", "ffn_"),
    ("attention", "attn_"),
    ("embedding", "token_embd."),
    ("output", "output."),
)
BYTES_TEKKEN = 320  # a token of tiktoken's tables, measured: 40 MB for 130,072 tokens
MINOR = 0.01  # of all bytes: what a type has less of does not count
MAX_NAMES = 4096  # of tensors whose meaning is remembered: a model is read in many file types
# the three matrices of a feed-forward part; in a mixture of experts each is a stack of all experts
MATRICES = ("gate", "up", "down")


@lru_cache(maxsize=MAX_NAMES)
def tensor_class(name: str) -> str:
    """Return in a word what a GGUF tensor of that name does."""
    return next((what for what, part in CLASSES if part in name), "other")


@dataclass(frozen=True)
class LayerShape:
    """Bytes of one layer: the three feed-forward matrices (all experts of each), and in `attention` all else, which every token reads.

    That is attention with norms and router, shared experts, and the feed-forward part of a mixture's leading dense layers, whose matrices here
    are 0. Where gate and up are one tensor, its bytes are in `gate`. `types` are those of the three matrices' weights, "" for one that is not known.
    """

    attention: int
    gate: int
    up: int
    down: int
    types: tuple[str, str, str] = ("", "", "")

    @cached_property
    def experts(self) -> int:
        """Return the bytes of the three matrices."""
        return self.gate + self.up + self.down


@dataclass(frozen=True)
class Measured:
    """What llama.cpp reported for a model whose graph is not known here, beside what is computed for it as if it were a Llama.

    `kv` is the cache's real size as a share of the computed one. `compute` has the compute buffers of all devices (the host last) for what was
    measured, each under buffers.py's `compute_key`; for the rest the computed buffers are taken times `ratios`, one for each device.
    """

    kv: float = 1.0
    ratios: tuple[float, ...] = ()
    compute: tuple[tuple[Hashable, tuple[int, ...]], ...] = ()

    def corrected(self, key: Hashable, found: Sequence[int]) -> Sequence[int]:
        """Return the buffers for a key, where `found` are the computed ones."""
        known = next((buffers for one, buffers in self.compute if one == key), None)
        if known is not None and len(known) == len(found):
            return known
        if len(self.ratios) != len(found):
            return found
        return [round(n_bytes * ratio) for n_bytes, ratio in zip(found, self.ratios, strict=True)]


@dataclass(frozen=True, kw_only=True)
class ModelShape(Dimensions):
    """The dimensions and sizes of one model.

    `bytes_*` are bytes on disk (and in memory, unless repacked). `layers` has the bytes of each layer, which differ;
    without it (a model of which only the total is known) all layers are taken as equal. `bytes_embedding` stays in host memory,
    `bytes_output` (with the last norm) is the output layer; where `tied`, that is the embedding once more. `attention_types` and
    `output_types` are the types of weights that every token reads in the layers, and in the output layer, with their bytes, where they are known.
    `bytes_tokenizer` is what a tokenizer beside llama.cpp's own takes in the host process; `measured` corrects the memory of a model of another
    family than Mistral's.
    """

    bytes_experts: int
    bytes_other: int
    params_total: int
    params_active: int
    layers: tuple[LayerShape, ...] = ()
    bytes_embedding: int = 0
    bytes_output: int = 0
    tied: bool = False
    attention_types: tuple[tuple[str, int], ...] = ()
    output_types: tuple[tuple[str, int], ...] = ()
    bytes_tokenizer: int = 0
    measured: Measured | None = None

    @property
    def types(self) -> tuple[str, ...]:
        """Return the types of weights that a processor multiplies with, where they are known; those in sum below a hundredth left out."""
        sums = Counter(dict(self.output_types))
        sums.update(dict(self.attention_types))
        for layer in self.layers:
            for name, n_bytes in zip(layer.types, (layer.gate, layer.up, layer.down), strict=True):
                sums[name] += n_bytes
        return tuple(sorted(name for name, n in sums.items() if name and n > MINOR * self.bytes_weights))

    @cached_property
    def all_types(self) -> frozenset[str]:
        """Return the types of all weights, however few there are."""
        others = (name for name, _ in (*self.attention_types, *self.output_types))
        return frozenset((*others, *(name for layer in self.each_layer() for name in layer.types)))

    @property
    def bytes_weights(self) -> int:
        """Return the bytes of all tensors."""
        return self.bytes_experts + self.bytes_other

    def each_layer(self) -> tuple[LayerShape, ...]:
        """Return the bytes of every layer: the real ones where they are known, else equal shares."""
        return self._each_layer

    @cached_property
    def _each_layer(self) -> tuple[LayerShape, ...]:
        known = sum(layer.attention + layer.experts for layer in self.layers)
        if self.layers and known + self.bytes_embedding + self._bytes_own_output <= self.bytes_weights:
            return self.layers
        third = self.bytes_experts // (3 * self.n_layer)
        return (LayerShape(self.bytes_other // self.n_layer, third, third, third),) * self.n_layer

    @property
    def _bytes_own_output(self) -> int:
        return 0 if self.tied else self.bytes_output

    def scaled(self, bytes_weights: int, file_type: str | None = None) -> "ModelShape":
        """Return the same model at another size in bytes, every tensor in proportion: a first look at another file type.

        All weights then have the type that the file type is named after; without a name the types that they have here.
        """
        ratio = bytes_weights / self.bytes_weights
        name = None if file_type is None else re.sub("_[SML]$", "", file_type)
        layers = tuple(
            LayerShape(
                int(layer.attention * ratio),
                int(layer.gate * ratio),
                int(layer.up * ratio),
                int(layer.down * ratio),
                layer.types if name is None else (name, name, name),
            )
            for layer in self.each_layer()
        )

        def types(here: tuple[tuple[str, int], ...], n_bytes: int) -> tuple[tuple[str, int], ...]:
            if name is None:
                return tuple((one, int(n * ratio)) for one, n in here)
            return ((name, n_bytes),)

        experts = int(self.bytes_experts * ratio)
        return replace(
            self,
            layers=layers,
            bytes_experts=experts,
            bytes_other=bytes_weights - experts,
            bytes_embedding=int(self.bytes_embedding * ratio),
            bytes_output=int(self.bytes_output * ratio),
            attention_types=types(self.attention_types, sum(layer.attention for layer in layers)),
            output_types=types(self.output_types, int(self.bytes_output * ratio)),
        )


def model_shape(metadata: Mapping[str, object], tensors: Iterable[tuple[str, int, int, str]]) -> ModelShape:
    """Read a shape from GGUF metadata (plain values) and tensors as (name, elements, bytes, type); a type "" is not known.

    Parameters count as llama.cpp counts them: every tensor's elements; active ones leave out the experts that a token does not use.
    Every number is only a claim: BadModel for one that the tensors, or the others, contradict.
    """
    listed = list(tensors)
    n_embd = Numbers(metadata).count("embedding_length", 1)
    n_vocab = next((n // n_embd for name, n, _, _ in listed if name == "token_embd.weight"), 0)
    dimensions = read_dimensions(metadata, {name for name, *_ in listed}, n_vocab)
    count = _Count(dimensions.n_layer_dense, is_mixture=bool(dimensions.n_expert))
    for name, n_elements, n_bytes, type_ in listed:
        count.add(name, n_elements, n_bytes, type_)
    if dimensions.n_layer > len(count.layers):
        raise BadModel(
            f"{dimensions.architecture}.block_count is {dimensions.n_layer:,}, "
            f"but the file has tensors of {len(count.layers):,} layers; it is damaged"
        )
    n_expert = dimensions.n_expert
    active = count.params_experts * min(dimensions.n_expert_used, n_expert) // n_expert if n_expert else 0
    return ModelShape(
        **{field.name: getattr(dimensions, field.name) for field in fields(Dimensions)},
        bytes_experts=count.bytes_experts,
        bytes_other=count.bytes_other,
        params_total=count.params_experts + count.params_other,
        params_active=count.params_other + active,
        layers=tuple(
            LayerShape(**count.layers.get(i, _EMPTY), types=count.types_of(i))
            for i in range(dimensions.n_layer)
        ),
        bytes_embedding=count.bytes_embedding,
        bytes_output=count.bytes_output if count.has_output else count.bytes_output + count.bytes_embedding,
        tied=not count.has_output,
        attention_types=tuple(sorted(count.attention_types.items())),
        output_types=count.output_types,
        bytes_tokenizer=BYTES_TEKKEN * n_vocab if metadata.get("tokenizer.ggml.pre") == "tekken" else 0,
    )


_EMPTY = dict.fromkeys(("attention", *MATRICES), 0)


class _Count:
    """Sums over a tensor list; the feed-forward part of a mixture's dense layers, the first `n_layer_dense` or others, stays with their attention."""

    def __init__(self, n_layer_dense: int, *, is_mixture: bool) -> None:
        self._n_layer_dense, self._is_mixture = n_layer_dense, is_mixture
        self.layers: dict[
            int, dict[str, int]
        ] = {}  # only what tensors name: their number is bounded by the file
        self.bytes_experts = self.bytes_other = self.params_experts = self.params_other = 0
        self.bytes_embedding = self.bytes_output = 0
        self.has_output = False
        self.matrix_types: dict[tuple[int, str], str] = {}
        self.attention_types: Counter[str] = Counter()
        self.output_types: tuple[tuple[str, int], ...] = ()

    def types_of(self, layer: int) -> tuple[str, str, str]:
        gate, up, down = (self.matrix_types.get((layer, matrix), "") for matrix in MATRICES)
        return gate, up, down

    def add(self, name: str, n_elements: int, n_bytes: int, type_: str) -> None:
        if tensor_class(name) == "experts":
            self.bytes_experts += n_bytes
            self.params_experts += n_elements
        else:
            self.bytes_other += n_bytes
            self.params_other += n_elements
        layer, part = _place(name)
        is_dense = self._is_mixture and "_exps." not in name
        if layer is not None and (layer < self._n_layer_dense or is_dense):
            part = "attention"
        if layer is None:
            if name == "token_embd.weight":
                self.bytes_embedding = n_bytes
            elif part == "output":
                self.bytes_output += n_bytes
                self.has_output |= name == "output.weight"
            if name == "output.weight" or (name == "token_embd.weight" and not self.has_output):
                self.output_types = ((type_, n_bytes),)  # a tied output is the embedding
        else:
            self.layers.setdefault(layer, dict(_EMPTY))[part] += n_bytes
            if part == "attention":
                self.attention_types[type_] += n_bytes
            elif name.endswith(".weight"):
                self.matrix_types[layer, part] = type_


@lru_cache(maxsize=MAX_NAMES)
def _place(name: str) -> tuple[int | None, str]:
    """Return the layer of a tensor (None outside of layers) and the part of LayerShape that it belongs to."""
    if not name.startswith("blk."):
        return None, "output" if name.startswith("output") else "embedding"
    number, _, rest = name.removeprefix("blk.").partition(".")
    stem = rest.partition(".")[0].removesuffix("_exps")
    matrix = {"ffn_gate_up": "gate"}.get(stem, stem.removeprefix("ffn_"))
    part = matrix if stem.startswith("ffn_") and matrix in MATRICES else "attention"
    return (int(number) if number.isdecimal() and len(number) < 6 else None), part


__all__ = ["CLASSES", "MATRICES", "LayerShape", "Measured", "ModelShape", "model_shape", "tensor_class"]
