"""Bits per weight and quality loss of every quant: the increase of perplexity over 8 bits, in percent.

Published for Mixtral 8x7B: perplexity 4.1049 at 8 bits, 4.1652 as Q4_K_M, 4.2884 as Q3_K_M, 5.0576 as Q2_K (the model card of
ikawrakow/mixtral-8x7b-quantized-gguf). Every other type, and every other model, is estimated by its bits per weight: on the lines
through these points, with the loss on a logarithmic scale. A type that is not a K-quant counts with the bits of a K-quant that loses as much,
as published for Mistral 7B: i-quants in Artefact2's "GGUF quantizations overview" (2024-02-26, ln(PPL(Q)/PPL(base)), with an importance
matrix), Q4_0 in the model card of ikawrakow/mistral-7b-quantized-gguf.
"""

from dataclasses import dataclass
from itertools import pairwise
from math import exp, log
from typing import Literal

from profiles.models import known_models
from profiles.shape import ModelShape

# Bits per weight of Mixtral 8x7B in the types that can be made of any checkpoint, under llama.cpp's present rules, best first. Those that
# need an importance matrix are not among them (IQ3_XS, IQ3_XXS and smaller): they count where a repository has them.
BITS = {
    "Q8_0": 8.50,
    "Q6_K": 6.57,
    "Q5_K_M": 5.69,
    "Q5_K_S": 5.52,
    "Q4_K_M": 4.87,
    "Q4_K_S": 4.58,
    "IQ4_NL": 4.58,
    "Q4_0": 4.53,
    "IQ4_XS": 4.35,
    "Q3_K_L": 4.14,
    "Q3_K_M": 3.86,
    "IQ3_M": 3.67,
    "IQ3_S": 3.50,
    "Q3_K_S": 3.50,
    "Q2_K": 2.97,
}
RARE = frozenset({"IQ4_NL", "Q4_0"})  # that few repositories have
USUAL = tuple(name for name in BITS if name not in RARE)
FULL = "Q8_0"  # better types make no measurable difference
PERPLEXITY = {"Q8_0": 4.1049, "Q4_K_M": 4.1652, "Q3_K_M": 4.2884, "Q2_K": 5.0576}
PUBLISHED = {name: 100 * (value / PERPLEXITY[FULL] - 1) for name, value in PERPLEXITY.items()}
# Bits more that a K-quant of BITS needs to lose as little. Nothing was published there of IQ3_XS: it lies between IQ3_XXS and IQ3_S.
WORTH = {
    "IQ4_NL": 0.09,
    "Q4_0": -0.30,
    "IQ4_XS": 0.25,
    "IQ3_M": 0.17,
    "IQ3_S": 0.27,
    "IQ3_XS": 0.13,
    "IQ3_XXS": 0.11,
}
_POINTS = sorted((BITS[name], log(percent)) for name, percent in PUBLISHED.items() if percent)


@dataclass(frozen=True, order=True)
class Loss:
    """Percent of perplexity above 8 bits, and whether that was published for this model and type or is estimated."""

    percent: float
    basis: Literal["published", "estimated"]

    @property
    def shown(self) -> str:
        """Write it for a table; an estimate has a tilde."""
        return f"{'~' if self.basis == 'estimated' else ''}{self.percent:.1f} %"


def loss_of(file_type: str, shape: ModelShape) -> Loss:
    """Return what a model loses in a file type; `shape` has its dimensions and the bytes of that file."""
    if file_type in PUBLISHED and _is_mixtral_8x7b(shape):
        return Loss(PUBLISHED[file_type], "published")
    bits = 8 * shape.bytes_weights / shape.params_total + WORTH.get(file_type, 0.0)
    return Loss(estimated_loss(bits), "estimated")


def estimated_loss(bits: float) -> float:
    """Return the loss in percent at so many bits per weight; 0 from 8 bits on."""
    if bits >= BITS[FULL] - 0.05:
        return 0.0
    pairs = list(pairwise(_POINTS))
    (left, low), (right, high) = next((pair for pair in pairs if bits <= pair[1][0]), pairs[-1])
    return exp(low + (high - low) * (bits - left) / (right - left))


def _is_mixtral_8x7b(shape: ModelShape) -> bool:
    facts = known_models()["mixtral-8x7b"]
    names = ("n_layer", "n_embd", "n_ff", "n_head", "n_head_kv", "n_expert", "n_expert_used")
    return all(getattr(shape, name) == getattr(facts, name) for name in names)


__all__ = ["BITS", "PUBLISHED", "RARE", "USUAL", "Loss", "estimated_loss", "loss_of"]
