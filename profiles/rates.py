"""Rates of a CPU for each weight type and layout: measured, or typical of its kind.

Size alone does not say it: types of the same size differ by three times, and a layout that llama.cpp repacks decodes faster and may read
prompts at half the rate. The products are those of Mixtral's experts: eight, two of which are used.
"""

from bisect import bisect_left
from collections.abc import Collection, Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from math import log
from statistics import median
from typing import Literal

from profiles.errors import shown

GB, TERA = 1e9, 1e12
BATCHES = FEW, SOME, MANY = 16, 64, 512  # tokens in the batches that are measured beside a single token
N_EXPERT, N_USED = 8, 2  # of the products that are measured

ATTENTION = "attention"  # the key of AttentionRates among the types

# where rates are from: measured here, measured here while other programs ran, written in a profile, typical of a kind of processor
Origin = Literal["measured", "busy", "profile", "typical"]

# bits of a weight, scales included (ggml-common.h)
BITS_OF_TYPE = {
    "F32": 32.0, "F16": 16.0, "BF16": 16.0,
    "Q8_0": 8.5, "Q5_1": 6.0, "Q5_0": 5.5, "Q4_1": 5.0, "Q4_0": 4.5, "MXFP4": 4.25,
    "Q6_K": 6.5625, "Q5_K": 5.5, "Q4_K": 4.5, "Q3_K": 3.4375, "Q2_K": 2.625,
    "IQ4_NL": 4.5, "IQ4_XS": 4.25, "IQ3_S": 3.4375, "IQ3_XXS": 3.0625,
    "IQ2_S": 2.5625, "IQ2_XS": 2.3125, "IQ2_XXS": 2.0625, "IQ1_M": 1.75, "IQ1_S": 1.5625,
}  # fmt: skip


Batches = tuple[float, float, float]  # a rate for each of BATCHES


@dataclass(frozen=True)
class ProductRates:
    """One type in one layout: `decode` is GB a second of weights that are read for one token; the others are TFLOP/s of batches.

    `experts` and `dense` have the rates of each of BATCHES, for a stack of experts and for one matrix.
    """

    decode: float
    experts: Batches
    dense: Batches

    def seconds_byte(self, bits: float, n_tokens: float, *, n_expert: int = 0, n_used: int = 0) -> float:
        """Return the seconds a token that each byte of a matrix costs in a batch of `n_tokens`.

        `bits` is what a weight has. With `n_expert` the byte belongs to a stack of experts of which each token uses `n_used`.
        """
        share, batches = 1.0, self.dense
        if n_expert:
            share, batches = n_used / n_expert, self.experts
            n_tokens = tokens_at_once(n_tokens, n_expert, n_used)
        operations = 2 * 8 / bits  # a token, for each byte that it needs
        rates = (self.decode * GB * operations, *(rate * TERA for rate in batches))
        return share * operations / _between(n_tokens, rates)

    def scaled(self, factor: float, most_decode: float) -> "ProductRates":
        """Return the rates of so many times the cores, decode bounded by what memory gives (GB a second)."""
        (few, some, many), (few_dense, some_dense, many_dense) = self.experts, self.dense
        return ProductRates(
            min(self.decode * factor, most_decode),
            (few * factor, some * factor, many * factor),
            (few_dense * factor, some_dense * factor, many_dense * factor),
        )


def tokens_at_once(n_tokens: float, n_expert: int, n_used: int) -> float:
    """Return the batch of Mixtral's experts in which each expert gets as many tokens as in a batch of `n_tokens` of this model.

    Experts see a part of the batch: what counts for the rate is the tokens that each gets. A dense model (no experts) sees all.
    """
    if n_tokens <= 1 or not n_expert:
        return n_tokens
    return max(1.0, n_tokens * n_used / n_expert * N_EXPERT / N_USED)


def _between(n_tokens: float, rates: tuple[float, ...]) -> float:
    """Return the rate of a batch from those of a single token and of BATCHES, on a line of logarithms; beyond the last it is the last."""
    sizes = (1, *BATCHES)
    at = bisect_left(sizes, n_tokens, 1, len(sizes) - 1)
    share = min(1.0, log(n_tokens / sizes[at - 1]) / log(sizes[at] / sizes[at - 1]))
    return float(rates[at - 1] * (rates[at] / rates[at - 1]) ** share)


@dataclass(frozen=True)
class TypeRates:
    """One type of weights: its rates as the file has it, and repacked; None where llama.cpp does not repack it on this processor."""

    type: str
    plain: ProductRates
    repacked: ProductRates | None = None
    origin: Origin = "measured"

    @property
    def layouts(self) -> tuple[ProductRates, ...]:
        """Return the rates of each layout that there is."""
        return (self.plain, self.repacked) if self.repacked else (self.plain,)


@dataclass(frozen=True)
class AttentionRates:
    """TFLOP/s of the products with the KV cache, for one token and in a batch: with flash attention, and without it."""

    plain: tuple[float, float]
    flash: tuple[float, float]
    origin: Origin = "measured"


@dataclass(frozen=True)
class HostRates:
    """The known rates of a processor, by type."""

    types: tuple[TypeRates, ...] = ()
    attention: AttentionRates | None = None

    def of(self, name: str, *, repacked: bool) -> ProductRates | None:
        """Return a type's rates in the layout that it then has; None for a type that is not known."""
        one = next((one for one in self.types if one.type == name), None)
        if one is None:
            return None
        return (one.repacked if repacked else None) or one.plain

    @cached_property
    def usual(self) -> ProductRates | None:
        """Return the median rates of the types as files have them, for those that are not known; None where none is known."""
        if not self.types:
            return None
        few, some, many, few_dense, some_dense, many_dense = (
            median(one)
            for one in zip(*((*one.plain.experts, *one.plain.dense) for one in self.types), strict=True)
        )
        decode = median(one.plain.decode for one in self.types)
        return ProductRates(decode, (few, some, many), (few_dense, some_dense, many_dense))

    def scaled(self, factor: float, most_decode: float) -> "HostRates":
        """Return the rates of so many times the cores, decode bounded by what memory gives (GB/s)."""
        types = tuple(
            replace(
                one,
                plain=one.plain.scaled(factor, most_decode),
                repacked=one.repacked.scaled(factor, most_decode) if one.repacked else None,
            )
            for one in self.types
        )
        attention = self.attention
        if attention:
            plain, flash = ((one * factor, many * factor) for one, many in (attention.plain, attention.flash))
            attention = replace(attention, plain=plain, flash=flash)
        return HostRates(types, attention)

    def over(self, other: "HostRates") -> "HostRates":
        """Return these rates, and those of `other` for what these do not have."""
        names = {one.type for one in self.types}
        others = (one for one in other.types if one.type not in names)
        return HostRates((*self.types, *others), self.attention or other.attention)

    def origins(self, names: Collection[str]) -> frozenset[Origin | None]:
        """Return where the rates of these types, and of attention, are from; None among them for a type that is not known."""
        known = {one.type: one.origin for one in self.types}
        attention = {self.attention.origin} if self.attention else set()
        return frozenset({*map(known.get, names), *attention})


def read_rates(table: Mapping[str, object], origin: Origin) -> HostRates:
    """Read {type: {decode, experts, dense, repacked: {...}}, ATTENTION: {plain, flash}}; ValueError names the type and key that is wrong."""
    found, attention = [], None
    for name, values in table.items():
        if name == ATTENTION:
            attention = _attention(values, origin)
            continue
        if name not in BITS_OF_TYPE:
            raise ValueError(f"{name!r} is not a weight type; {_nearest(name)}")
        if not isinstance(values, Mapping):
            raise ValueError(f"{name!r} must be a table with decode, experts and dense")
        repacked = values.get("repacked")
        plain = {key: value for key, value in values.items() if key != "repacked"}
        found.append(
            TypeRates(
                name,
                _product(plain, name),
                None if repacked is None else _product(repacked, f"{name}.repacked"),
                origin,
            )
        )
    return HostRates(tuple(found), attention)


def write_rates(rates: HostRates) -> dict[str, dict[str, object]]:
    """Return the table that `read_rates` reads, of plain values."""
    table: dict[str, dict[str, object]] = {
        one.type: {**_values(one.plain), **({"repacked": _values(one.repacked)} if one.repacked else {})}
        for one in rates.types
    }
    if rates.attention:
        table[ATTENTION] = {"plain": list(rates.attention.plain), "flash": list(rates.attention.flash)}
    return table


def _values(rates: ProductRates) -> dict[str, object]:
    return {"decode": rates.decode, "experts": list(rates.experts), "dense": list(rates.dense)}


def _product(values: object, where: str) -> ProductRates:
    if not isinstance(values, Mapping) or set(values) != {"decode", "experts", "dense"}:
        raise ValueError(f"{where!r} must have the keys decode, experts and dense")
    experts, dense = (_batches(values[key], f"{where}.{key}") for key in ("experts", "dense"))
    return ProductRates(_rate(values["decode"], f"{where}.decode"), experts, dense)


def _nearest(name: str) -> str:
    """Suggest the type that an invalid name starts with, ignoring case; list all types if there is none."""
    names = (*BITS_OF_TYPE, ATTENTION)
    near = [one for one in names if name.casefold().startswith(one.casefold())]
    return f"did you mean {max(near, key=len)!r}?" if near else f"types are {', '.join(names)}"


def _attention(values: object, origin: Origin) -> AttentionRates:
    if not isinstance(values, Mapping) or set(values) != {"plain", "flash"}:
        raise ValueError(f"{ATTENTION!r} must have the keys plain and flash")
    plain, flash = (_pair(values[key], f"{ATTENTION}.{key}") for key in ("plain", "flash"))
    return AttentionRates(plain, flash, origin)


def _batches(value: object, where: str) -> Batches:
    """Read a rate for each of BATCHES; in profiles of before only FEW and MANY have one, and that of SOME is put between them."""
    if isinstance(value, list | tuple) and len(value) == 2:
        few, many = (_rate(one, where) for one in value)
        return few, few * (many / few) ** (log(SOME / FEW) / log(MANY / FEW)), many
    if not isinstance(value, list | tuple) or len(value) != len(BATCHES):
        sizes = ", ".join(map(str, BATCHES[:-1]))
        raise ValueError(
            f"{where!r} is {shown(value)}; it must be {len(BATCHES)} rates: for {sizes} and {MANY} tokens"
        )
    few, some, many = (_rate(one, where) for one in value)
    return few, some, many


def _pair(value: object, where: str) -> tuple[float, float]:
    if not isinstance(value, list | tuple) or len(value) != 2:
        raise ValueError(f"{where!r} is {shown(value)}; it must be two rates: for few and for many tokens")
    few, many = (_rate(one, where) for one in value)
    return few, many


def _rate(value: object, where: str) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 < value < 1e6:
        raise ValueError(f"{where!r} has {shown(value)}; it must be a rate above 0 and below 1,000,000")
    return float(value)


__all__ = [
    "BATCHES",
    "BITS_OF_TYPE",
    "FEW",
    "MANY",
    "SOME",
    "HostRates",
    "Origin",
    "ProductRates",
    "TypeRates",
    "read_rates",
    "write_rates",
]
