"""Find the best types for a machine: the largest budget at which a file is wholly on the GPUs, decodes fast enough, or has a given size."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal

from mixcli.errors import DoesNotFit
from mixcli.system.formatting import format_bytes
from mixcli.tailor.subject import TailorSubject
from profiles.machine import Machine
from profiles.planner import plan_if_it_fits
from profiles.quality import loss_of
from profiles.quant_choice import Row
from profiles.rates import BITS_OF_TYPE, HostRates
from profiles.request import PlanRequest
from quantize.ggml_types import GGMLQuantizationType
from quantize.recipe import choose_types
from quantize.source import ModelSource
from quantize.tailor.choice import (
    CANDIDATES,
    LOW,
    STANDARD,
    TailoredTypes,
    TailoringProblem,
    Types,
    pins,
)

Kind = Literal["size", "tps", "gpu"]
TOLERANCE = 0.0004  # of a budget: where the search for the largest ends
NAME = "tailored"


@dataclass(frozen=True)
class TailorGoal:
    """What a file is fitted to: bytes of the file ("size"), tokens per second ("tps"), or the GPUs ("gpu")."""

    kind: Kind
    value: float = 0.0

    @property
    def verb(self) -> str:
        """Return what a file that meets it does, in words."""
        return {
            "size": f"is {self.words}",
            "gpu": "fits wholly on the GPUs",
            "tps": f"decodes {self.words}",
        }[self.kind]

    @property
    def words(self) -> str:
        """Return it in words."""
        if self.kind == "size":
            return f"at most {format_bytes(self.value)}"
        return "all on the GPUs" if self.kind == "gpu" else f"{self.value:g} tok/s or more"


@dataclass(frozen=True)
class FittedFile:
    """A file, standard or tailored: its types, and how it is planned; `loss` is None where a type was not measured."""

    name: str
    types: Types
    row: Row
    loss: float | None
    gap: float = 0.0

    @property
    def n_bytes(self) -> int:
        """Return the bytes of the weights."""
        return self.row.size


class Fitting:
    """A measured model and a machine: standard types and tailored ones, planned for a context."""

    def __init__(
        self, subject: TailorSubject, problem: TailoringProblem, machine: Machine, request: PlanRequest
    ) -> None:
        self._subject, self._problem, self._machine = subject, problem, machine
        # a file that fills the memory leaves none for large micro-batches
        self._request = replace(request, n_ubatch=request.n_ubatch or min(machine.ubatches))
        self._standard = standard_types(subject.model)
        self._sizes = {name: problem.n_bytes(types) for name, types in self._standard.items()}

    def standard(self) -> list[FittedFile]:
        """Return the standard files, smallest first."""
        return [self._planned(name, types) for name, types in self._standard.items()]

    def tailored(self, goal: TailorGoal, n_bytes: int | None = None) -> FittedFile:
        """Return the file of least loss that meets a goal; DoesNotFit where the smallest one does not.

        `n_bytes` are those of the weights in a file of a size, where its header leaves them fewer.
        """
        if goal.kind == "size":
            found = self.best(int(goal.value) if n_bytes is None else n_bytes)
            if found is None:
                raise self._too_small(goal)
            return self._fitted(found)
        return self._largest(goal)

    def check(self, goal: TailorGoal) -> None:
        """Raise DoesNotFit where the smallest file does not meet a goal; sizes decide that, not what was measured."""
        meets = self._least <= goal.value if goal.kind == "size" else self._meeting(self._least, goal)
        if not meets:
            raise self._too_small(goal)

    def curve(self, n: int = 24) -> list[tuple[int, float]]:
        """Return bytes and losses of tailored files over all sizes, smallest first."""
        most = max(self._sizes.values())
        found = [self.best(self._least + (most - self._least) * i // (n - 1)) for i in range(n)]
        return sorted({(one.n_bytes, one.loss) for one in found if one is not None and one.loss > 0})

    def simply_filled(self, n_bytes: int) -> FittedFile | None:
        """Return a file of at most so many bytes of weights by a rule without measurements, to compare with."""
        found = self._problem.simply_filled(n_bytes, self._pins(n_bytes))
        return None if found is None else self._planned("simple fill", found.types, found.gap)

    def best(self, n_bytes: int) -> TailoredTypes | None:
        """Return the types of least loss whose weights have at most so many bytes."""
        found = self._problem.within(n_bytes, self._pins(n_bytes))
        return found or self._problem.within(n_bytes, self._standard[self._smallest])

    @property
    def _least(self) -> int:
        """Return the bytes of the smallest file."""
        return self._problem.smallest(self._standard[self._smallest])

    @property
    def _smallest(self) -> str:
        return min(self._sizes, key=lambda name: self._sizes[name])

    def _pins(self, n_bytes: int) -> Types:
        fitting = [name for name, size in self._sizes.items() if size <= n_bytes]
        nearest = max(fitting, key=lambda name: self._sizes[name], default=self._smallest)
        return pins(self._subject.model, self._standard[nearest])

    def _largest(self, goal: TailorGoal) -> FittedFile:
        """Search the largest budget whose file meets a goal of speed or place."""
        low = self._least
        high = 2 * max(self._sizes.values())
        if goal.kind == "gpu":
            free = sum(gpu.bytes_free for gpu in self._machine.gpus)
            high = min(high, free + self._subject.shape(self._standard[self._smallest]).bytes_embedding)
        found = self._meeting(low, goal)
        if found is None:
            raise self._too_small(goal)
        if (largest := self._meeting(high, goal)) is not None:
            return largest
        while high - low > TOLERANCE * low:
            middle = (low + high) // 2
            one = self._meeting(middle, goal)
            low, high, found = (low, middle, found) if one is None else (middle, high, one)
        return found

    def _meeting(self, n_bytes: int, goal: TailorGoal) -> FittedFile | None:
        chosen = self.best(n_bytes)
        if chosen is None or (goal.kind == "gpu" and not self._lies_on_gpus(chosen.types)):
            return None
        found = self._fitted(chosen)
        met = found.row.is_on_gpus if goal.kind == "gpu" else found.row.decode >= goal.value
        return found if found.row.plan is not None and met else None

    def _lies_on_gpus(self, types: Types) -> bool:
        """Return whether any plan has all layers on the GPUs: a no saves the search for the best plan with layers in RAM."""
        request = replace(self._request, on_gpus=True)
        return plan_if_it_fits(self._subject.shape(types), self._machine, request) is not None

    def _fitted(self, chosen: TailoredTypes) -> FittedFile:
        return self._planned(NAME, chosen.types, chosen.gap)

    def _planned(self, name: str, types: Types, gap: float = 0.0) -> FittedFile:
        shape = self._subject.shape(types)
        row = Row(name, shape, loss_of(name, shape), plan_if_it_fits(shape, self._machine, self._request))
        return FittedFile(name, types, row, self._problem.loss_of(types), gap)

    def _too_small(self, goal: TailorGoal) -> DoesNotFit:
        return DoesNotFit(
            f"no file of {self._subject.name} {goal.verb}: the smallest is {format_bytes(self._least)}, and {self._way_out(goal)}"
        )

    def _way_out(self, goal: TailorGoal) -> str:
        if goal.kind == "size":
            return f"the limit is {format_bytes(goal.value)}; pass a larger --size"
        if goal.kind == "tps":
            return "decodes more slowly; pass a smaller --target-tps or --ctx"
        free = sum(gpu.bytes_free for gpu in self._machine.gpus)
        return f"{format_bytes(free)} are free there; pass a smaller --ctx, --kv q8_0, or --size SIZE for a file that is partly in RAM"


def standard_types(model: ModelSource) -> dict[str, Types]:
    """Return llama.cpp's own types in each standard file that the model can have with an importance matrix, smallest first."""
    return {name: choose_types(model, name, imatrix=True) for name in STANDARD}


def candidates_for(
    subject: TailorSubject, goal: TailorGoal, machine: Machine
) -> tuple[GGMLQuantizationType, ...]:
    """Return the types that a file may have: on GPUs all, else those that this processor does not compute more slowly than larger ones.

    The smallest ones, which take long to make, are only among them where Q2_K, the smallest usual one, is too large.
    """
    smallest = subject.shape(choose_types(subject.model, STANDARD[0], imatrix=True)).bytes_weights
    room = {"gpu": sum(gpu.bytes_free for gpu in machine.gpus), "size": goal.value, "tps": smallest}
    types = (*(LOW if room[goal.kind] < smallest else ()), *CANDIDATES)
    return types if goal.kind == "gpu" else worthwhile(types, machine.rates)


def worthwhile(types: Sequence[GGMLQuantizationType], rates: HostRates) -> tuple[GGMLQuantizationType, ...]:
    """Leave out each type of which a weight takes longer than one of a larger type; where rates are not known, all of IQ2 and IQ3."""
    seconds: dict[GGMLQuantizationType, float] = {}
    for one in types:
        if known := rates.of(one.name, repacked=False):
            seconds[one] = BITS_OF_TYPE[one.name] / known.decode
    kept = []
    for one in types:
        mine = seconds.get(one)
        larger = [seconds[other] for other in seconds if BITS_OF_TYPE[other.name] > BITS_OF_TYPE[one.name]]
        if mine is None:
            if not one.name.startswith(("IQ2", "IQ3")):
                kept.append(one)
        elif mine <= min(larger, default=mine):
            kept.append(one)
    return tuple(kept)


__all__ = ["FittedFile", "Fitting", "TailorGoal", "candidates_for", "standard_types", "worthwhile"]
