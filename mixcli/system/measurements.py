"""The orders and answers of the processes that measure: one load of a model, and the matrix products of this CPU.

Parent and child share these records, each as one line of JSON; neither side needs the other's modules.
"""

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from profiles.placement import Placement

MIB = 1 << 20

Expected = Mapping[str, Mapping[str, int]]  # bytes by device and part


@dataclass(frozen=True)
class Comparison:
    """One device's plan against the fact, in bytes; parts are (name, planned, real)."""

    device: str
    parts: tuple[tuple[str, int, int], ...]

    @property
    def planned(self) -> int:
        return sum(planned for _, planned, _ in self.parts)

    @property
    def real(self) -> int:
        return sum(real for _, _, real in self.parts)

    @property
    def off(self) -> float:
        """Return the difference as a share of what was planned."""
        return abs(self.real - self.planned) / max(self.planned, MIB)


@dataclass(frozen=True)
class ProbeOrder:
    """What to load, and what to measure: nothing where the numbers are 0 and the lists empty.

    `tokens` are decoded after `prompt` tokens of prefill; `batches` are numbers of sequences that decode together; `logits` are the tokens
    of a prompt.
    """

    path: Path
    placement: Placement
    expected: Expected = field(default_factory=dict)
    prompt: int = 0
    tokens: int = 0
    batches: tuple[int, ...] = ()
    logits: tuple[int, ...] = ()

    def to_json(self) -> str:
        return json.dumps({**vars(self), "path": str(self.path), "placement": self.placement.to_json()})

    @classmethod
    def from_json(cls, text: str) -> "ProbeOrder":
        """Read an order; what it leaves out is not measured."""
        read: dict[str, Any] = json.loads(text)
        path, placement = Path(read.pop("path")), Placement.from_json(read.pop("placement"))
        batches, logits = tuple(read.pop("batches", ())), tuple(read.pop("logits", ()))
        return cls(path, placement, batches=batches, logits=logits, **read)


@dataclass(frozen=True)
class ProbeAnswer:
    """What a load took and how fast it was: `prefill` and `decode` in tokens per second, 0 where they were not measured.

    `batches` are tokens per second of decode by the number of sequences, `logits` those after the prompt.
    """

    comparisons: tuple[Comparison, ...]
    notes: tuple[str, ...] = ()
    prefill: float = 0.0
    decode: float = 0.0
    batches: Mapping[int, float] = field(default_factory=dict)
    logits: tuple[float, ...] = ()

    def to_json(self) -> str:
        return json.dumps(asdict(self))

    @classmethod
    def from_json(cls, text: str) -> "ProbeAnswer":
        read: dict[str, Any] = json.loads(text)
        return cls(
            tuple(
                Comparison(
                    one["device"], tuple((name, planned, real) for name, planned, real in one["parts"])
                )
                for one in read["comparisons"]
            ),
            tuple(read["notes"]),
            read["prefill"],
            read["decode"],
            {int(n): rate for n, rate in read["batches"].items()},
            tuple(read["logits"]),
        )


@dataclass(frozen=True)
class ProductOrder:
    """Which weight types to measure: `rows` of an expert, and the least `bytes` of a stack of experts, which caches should not hold."""

    types: tuple[str, ...]
    threads: int
    rows: int
    bytes: int

    def to_json(self) -> str:
        return json.dumps(asdict(self))

    @classmethod
    def from_json(cls, text: str) -> "ProductOrder":
        read: dict[str, Any] = json.loads(text)
        return cls(**{**read, "types": tuple(read["types"])})


@dataclass(frozen=True)
class ProductLine:
    """The rates of one type in one layout, as `profiles.rates` reads them: of attention a pair of rates.

    `second` is the repacked layout, or flash attention; `rates` is None where a type is not repacked. `busy` says that other programs took a
    part of the processor.
    """

    type: str
    second: bool
    rates: Any
    busy: bool

    def to_json(self) -> str:
        return json.dumps(asdict(self))

    @classmethod
    def from_json(cls, text: str) -> "ProductLine":
        """Read a line; ValueError or TypeError for one that was cut."""
        return cls(**json.loads(text))


__all__ = ["MIB", "Comparison", "Expected", "ProbeAnswer", "ProbeOrder", "ProductLine", "ProductOrder"]
