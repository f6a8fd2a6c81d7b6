"""What the child process is asked to compute, and the lines of JSON that report its progress and result."""

import json
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mixcli.host.protocol.host_spec import LoadPlan
from mixcli.insight.bench_record import BenchTest
from mixcli.insight.pieces import TextPiece

N_CTX = 512  # tokens of a chunk, as in llama.cpp's programs
TOKENS_AT_ONCE = 2048  # of all chunks that are read together


def n_at_once(n_ctx: int) -> int:
    """Return how many chunks are read together, as llama-imatrix and llama-perplexity do with their default batch."""
    return max(1, TOKENS_AT_ONCE // n_ctx)


@dataclass(frozen=True)
class TextReading:
    """A model, how to load it, and the texts to read in chunks of `n_ctx` tokens; `n_chunks` at most, None for all."""

    path: Path
    plan: LoadPlan
    pieces: tuple[TextPiece, ...]
    n_ctx: int = N_CTX
    n_chunks: int | None = None

    @property
    def n_enough(self) -> int | None:
        """Return how many tokens of a text the chunks can take at most; None for all."""
        return None if self.n_chunks is None else self.n_chunks * self.n_ctx

    def to_data(self) -> dict[str, object]:
        return {
            "path": os.fspath(self.path),
            "plan": self.plan.to_data(),
            "pieces": [piece.to_data() for piece in self.pieces],
            "n_ctx": self.n_ctx,
            "n_chunks": self.n_chunks,
        }

    @classmethod
    def from_data(cls, data: Any) -> "TextReading":
        """Read what `to_data` returned."""
        return cls(
            Path(data["path"]),
            LoadPlan.from_data(data["plan"]),
            tuple(map(TextPiece.from_data, data["pieces"])),
            data["n_ctx"],
            data["n_chunks"],
        )


@dataclass(frozen=True)
class ImatrixOrder:
    """Sum up importance while reading, and keep the sums in `partial`, every `save_interval` seconds and at the end.

    `run` identifies what is computed: what is in `partial` of another run is not continued. With `with_output` the output matrix
    counts too, with `with_sensitivity` also what errors of outputs cost (sensitivity.py).
    """

    reading: TextReading
    partial: Path
    run: str
    with_output: bool = False
    save_interval: float = 10.0
    with_sensitivity: bool = False

    kind = "imatrix"

    def to_json(self) -> str:
        rest = {**vars(self), "partial": os.fspath(self.partial), "reading": self.reading.to_data()}
        return json.dumps({"kind": self.kind, **rest})


@dataclass(frozen=True)
class PerplexityOrder:
    """Compute the likelihood of the texts; write the distributions to `write_baseline`, or compare with those in `read_baseline`."""

    reading: TextReading
    write_baseline: Path | None = None
    read_baseline: Path | None = None

    kind = "perplexity"

    def to_json(self) -> str:
        paths = {
            name: path and os.fspath(path)
            for name, path in (
                ("write_baseline", self.write_baseline),
                ("read_baseline", self.read_baseline),
            )
        }
        return json.dumps({"kind": self.kind, "reading": self.reading.to_data(), **paths})


@dataclass(frozen=True)
class ExpertsOrder:
    """See which experts the texts are given to, and how another text's tokens differ (none where `against` is empty)."""

    reading: TextReading
    against: tuple[TextPiece, ...] = ()

    kind = "experts"

    def to_json(self) -> str:
        against = [piece.to_data() for piece in self.against]
        return json.dumps({"kind": self.kind, "reading": self.reading.to_data(), "against": against})


@dataclass(frozen=True)
class BenchOrder:
    """Measure tests, each `n_repeats` times, with a model that is loaded as a host loads it; `gpus` are names of devices to measure too."""

    path: Path
    plan: LoadPlan
    tests: tuple[BenchTest, ...]
    n_repeats: int
    gpus: tuple[str, ...] = ()

    kind = "bench"

    def to_json(self) -> str:
        rest = {"n_repeats": self.n_repeats, "gpus": self.gpus, "tests": [vars(one) for one in self.tests]}
        return json.dumps(
            {"kind": self.kind, "path": os.fspath(self.path), "plan": self.plan.to_data(), **rest}
        )


TextOrder = ImatrixOrder | PerplexityOrder | ExpertsOrder
Order = TextOrder | BenchOrder


def load_of(order: Order) -> tuple[Path, LoadPlan]:
    """Return the model that an order loads, and how."""
    return (
        (order.path, order.plan)
        if isinstance(order, BenchOrder)
        else (order.reading.path, order.reading.plan)
    )


def order_from_json(text: str) -> Order:
    """Read an order."""
    data: dict[str, Any] = json.loads(text)
    kind = data.pop("kind")
    if kind == BenchOrder.kind:
        tests, plan = tuple(BenchTest(**one) for one in data["tests"]), LoadPlan.from_data(data["plan"])
        return BenchOrder(Path(data["path"]), plan, tests, data["n_repeats"], tuple(data["gpus"]))
    reading = TextReading.from_data(data.pop("reading"))
    if kind == ImatrixOrder.kind:
        return ImatrixOrder(reading, Path(data.pop("partial")), **data)
    if kind == ExpertsOrder.kind:
        return ExpertsOrder(reading, tuple(map(TextPiece.from_data, data["against"])))
    return PerplexityOrder(reading, **{name: path and Path(path) for name, path in data.items()})


@dataclass(frozen=True)
class ChildLine:
    """One line of the child: how far it is, a note for the person, or the result; the others are empty."""

    done: float = 0.0
    total: float = 0.0
    stage: str = ""
    note: str = ""
    result: Mapping[str, Any] | None = None

    def to_json(self) -> str:
        return json.dumps({name: value for name, value in vars(self).items() if value})

    @classmethod
    def from_json(cls, text: str) -> "ChildLine":
        """Read a line; ValueError or TypeError for one that is something else."""
        return cls(**json.loads(text))
