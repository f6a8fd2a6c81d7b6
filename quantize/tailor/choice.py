"""Which tensors of a model are free, which types the others are pinned to, and the best types of all within a budget of bytes."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from quantize.file_layout import ALIGNMENT, pad
from quantize.ggml_types import BLOCK, GGMLQuantizationType, bits, row_bytes
from quantize.source import ModelSource, TensorSource
from quantize.tailor.allocation import allocate, fill_in_order

_T = GGMLQuantizationType
Types = Mapping[str, GGMLQuantizationType]

# what a free tensor may become, smallest first; those in LOW are looked at where nothing else is small enough: they are slow to make
CANDIDATES = (_T.Q2_K, _T.IQ3_XXS, _T.Q3_K, _T.IQ3_S, _T.IQ4_XS, _T.Q4_K, _T.Q5_K, _T.Q6_K, _T.Q8_0)
LOW = (_T.IQ2_XXS, _T.IQ2_XS, _T.IQ2_S)
STANDARD = ("Q2_K", "Q3_K_S", "Q3_K_M", "IQ4_XS", "Q4_K_S", "Q4_K_M", "Q5_K_S", "Q5_K_M", "Q6_K", "Q8_0")
_FREE = re.compile(r"blk\.\d+\.ffn_(gate|up|gate_up|down)(_exps|_shexp)?\.weight")
# the least that a pinned tensor of a mixture gets, which has few of them: all tokens pass through it
_FLOORS = (
    (re.compile(r"blk\.\d+\.attn_(k|v|qkv|kv_a_mqa|k_b|v_b|kv_b)\.weight"), _T.Q8_0),
    (re.compile(r"blk\.\d+\.attn_(q|q_a|q_b|output)\.weight"), _T.Q5_K),
    (re.compile(r"output\.weight"), _T.Q6_K),
)
SEED = 1  # of the simple fill


@dataclass(frozen=True)
class TailoredTypes:
    """The type of every tensor, the bytes of all weights, what they lose, and how far that may be above the least possible, as a share."""

    types: Types
    n_bytes: int
    loss: float
    gap: float = 0.0


def is_free(tensor: TensorSource) -> bool:
    """Return whether a tensor's type is chosen by its errors: the matrices of feed-forward parts, of each expert stack one type."""
    return _FREE.fullmatch(tensor.name) is not None


def pins(model: ModelSource, standard: Types) -> dict[str, GGMLQuantizationType]:
    """Return the types of a standard file, and in a mixture, for the few tensors that are not free, no less than they deserve."""
    is_mixture = any("_exps." in tensor.name for tensor in model.tensors)
    return {
        tensor.name: _at_least(tensor, standard[tensor.name]) if is_mixture else standard[tensor.name]
        for tensor in model.tensors
    }


def _at_least(tensor: TensorSource, standard: GGMLQuantizationType) -> GGMLQuantizationType:
    floor = next((type_ for pattern, type_ in _FLOORS if pattern.fullmatch(tensor.name)), standard)
    fits = tensor.shape[-1] % BLOCK[floor][0] == 0
    return floor if fits and bits(floor) > bits(standard) else standard


def bytes_of(tensor: TensorSource, type_: GGMLQuantizationType) -> int:
    """Return the bytes of a tensor in a file, with what aligns the next one."""
    return pad(tensor.n_rows * row_bytes(type_, tensor.shape[-1]), ALIGNMENT)


@dataclass(frozen=True)
class TailoringProblem:
    """The tensors of a model, the types that free ones may have, and what each of these costs each of them, float64 (n_types,)."""

    tensors: Sequence[TensorSource]
    candidates: Sequence[GGMLQuantizationType]
    losses: Mapping[str, NDArray[np.float64]]

    @cached_property
    def free(self) -> list[TensorSource]:
        """Return the free tensors that some candidate fits, in the order of the rows of `sizes` and `costs`."""
        return [one for one in self.tensors if is_free(one) and np.isfinite(self.losses[one.name]).any()]

    @cached_property
    def sizes(self) -> NDArray[np.int64]:
        """Return the bytes of each free tensor in each type; 0 where it cannot have it."""
        return np.array(
            [
                [
                    0 if tensor.shape[-1] % BLOCK[kind][0] else bytes_of(tensor, kind)
                    for kind in self.candidates
                ]
                for tensor in self.free
            ],
            np.int64,
        )

    @cached_property
    def costs(self) -> NDArray[np.float64]:
        """Return what each type costs each free tensor."""
        return np.array([self.losses[tensor.name] for tensor in self.free])

    def within(self, budget: int, pinned: Types) -> TailoredTypes | None:
        """Return the best types whose weights have at most `budget` bytes, other tensors as `pinned` has them; None where the smallest have more."""
        found = allocate(self.sizes, self.costs, budget - self.bytes_pinned(pinned))
        return None if found is None else self._chosen(found.options, pinned, found.gap)

    def simply_filled(self, budget: int, pinned: Types, seed: int = SEED) -> TailoredTypes | None:
        """Return the types of a rule without any table: all tensors as large as all can be, then some one step larger, drawn at random."""
        order = np.random.default_rng(seed).permutation(len(self.free))
        found = fill_in_order(self.sizes, self.costs, budget - self.bytes_pinned(pinned), order)
        return None if found is None else self._chosen(found.options, pinned)

    def loss_of(self, types: Types) -> float | None:
        """Return what the free tensors lose in these types; None where one of them is not among the candidates."""
        columns = {kind: i for i, kind in enumerate(self.candidates)}
        if any(types[tensor.name] not in columns for tensor in self.free):
            return None
        return float(sum(self.losses[one.name][columns[types[one.name]]] for one in self.free))

    def smallest(self, pinned: Types) -> int:
        """Return the bytes of all weights with the smallest types that free tensors can have."""
        possible = np.where(np.isfinite(self.costs), self.sizes, np.iinfo(np.int64).max)
        return self.bytes_pinned(pinned) + int(possible.min(axis=1).sum())

    def bytes_pinned(self, types: Types) -> int:
        """Return the bytes of the tensors that are not free."""
        free = {one.name for one in self.free}
        return sum(bytes_of(one, types[one.name]) for one in self.tensors if one.name not in free)

    def n_bytes(self, types: Types) -> int:
        """Return the bytes of all tensors in these types."""
        return sum(bytes_of(tensor, types[tensor.name]) for tensor in self.tensors)

    def _chosen(self, options: Sequence[int], pinned: Types, gap: float = 0.0) -> TailoredTypes:
        chosen = {one.name: self.candidates[k] for one, k in zip(self.free, options, strict=True)}
        types = {one.name: chosen.get(one.name) or pinned[one.name] for one in self.tensors}
        return TailoredTypes(types, self.n_bytes(types), self.loss_of(types) or 0.0, gap)


__all__ = [
    "CANDIDATES",
    "LOW",
    "STANDARD",
    "TailoredTypes",
    "TailoringProblem",
    "bytes_of",
    "is_free",
    "pins",
]
