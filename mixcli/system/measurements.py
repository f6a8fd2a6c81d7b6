"""The orders and answers of the processes that measure: one load of a model, its buffers without a load, and the matrix products of this CPU.

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
class TrialOrder:
    """A GGUF header that llama.cpp is to read, and the placements to lay out without memory for them.

    `header` is a file that has neither data nor a vocabulary; `vocabulary` one whose vocabulary is read too, None for none. `gpus` are the names
    of the plan's GPUs: where this process has no such devices, stand-ins take their place.
    """

    header: Path
    vocabulary: Path | None = None
    placements: tuple[Placement, ...] = ()
    gpus: tuple[str, ...] = ()

    def to_json(self) -> str:
        vocabulary = None if self.vocabulary is None else str(self.vocabulary)
        placements = [one.to_json() for one in self.placements]
        return json.dumps(
            {
                "header": str(self.header),
                "vocabulary": vocabulary,
                "placements": placements,
                "gpus": self.gpus,
            }
        )

    @classmethod
    def from_json(cls, text: str) -> "TrialOrder":
        read: dict[str, Any] = json.loads(text)
        vocabulary = read["vocabulary"]
        return cls(
            Path(read["header"]),
            None if vocabulary is None else Path(vocabulary),
            tuple(Placement.from_json(one) for one in read["placements"]),
            tuple(read["gpus"]),
        )


@dataclass(frozen=True)
class TrialBuffers:
    """What llama.cpp would allocate for one placement, in bytes: the KV cache of all devices, and compute buffers by device.

    The devices are the order's GPUs and then the host, whose rows of logits count too. `has_stand_ins` says that the GPUs are not here, so that what
    only they do (work with the host's experts) is not in it.
    """

    kv: int
    compute: tuple[int, ...]
    has_stand_ins: bool = False


@dataclass(frozen=True)
class TrialAnswer:
    """What came of a trial: the buffers of each placement, in the order's sequence."""

    buffers: tuple[TrialBuffers, ...]

    def to_json(self) -> str:
        return json.dumps(asdict(self))

    @classmethod
    def from_json(cls, text: str) -> "TrialAnswer":
        read: dict[str, Any] = json.loads(text)
        return cls(
            tuple(
                TrialBuffers(one["kv"], tuple(one["compute"]), one["has_stand_ins"])
                for one in read["buffers"]
            )
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


__all__ = [
    "MIB",
    "Comparison",
    "Expected",
    "ProbeAnswer",
    "ProbeOrder",
    "ProductLine",
    "ProductOrder",
    "TrialAnswer",
    "TrialBuffers",
    "TrialOrder",
]
