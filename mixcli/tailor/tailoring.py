"""From a model and a goal to a file: measure, choose, compare, write and verify, in the order of `mixcli tailor`."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np

from mixcli.tailor.fitting import FittedFile, Fitting, TailorGoal, candidates_for
from mixcli.tailor.picture import LossPicture, LossPoint
from mixcli.tailor.subject import TailorSubject
from profiles.machine import Machine
from profiles.rates import BITS_OF_TYPE
from profiles.request import PlanRequest
from quantize import ggml
from quantize.ggml_types import BLOCK, GGMLQuantizationType
from quantize.tailor.choice import TailoringProblem, is_free

CONTEXTS = (4096, 8192, 32768)
DEFAULT_CTX = 8192


@dataclass(frozen=True)
class ContextTable:
    """Standard files and the tailored one at one context, smallest first."""

    n_ctx: int
    files: tuple[FittedFile, ...]

    @property
    def tailored(self) -> FittedFile:
        """Return the tailored file."""
        return next(one for one in self.files if one.name == "tailored")

    @property
    def largest_standard(self) -> FittedFile | None:
        """Return the largest standard file whose size does not exceed that of the tailored one."""
        smaller = [
            one for one in self.files if one.name != "tailored" and one.n_bytes <= self.tailored.n_bytes
        ]
        return max(smaller, key=lambda one: one.n_bytes, default=None)


@dataclass(frozen=True)
class Tailoring:
    """A measured model, a goal and a machine."""

    subject: TailorSubject
    problem: TailoringProblem
    goal: TailorGoal
    machine: Machine
    request: PlanRequest

    @property
    def n_ctx(self) -> int:
        """Return the context that the file is made for."""
        return max((n for n in self.contexts if n <= DEFAULT_CTX), default=self.contexts[0])

    @property
    def _n_ctx_train(self) -> int:
        architecture = self.subject.model.metadata["general.architecture"].value
        known = self.subject.model.metadata.get(f"{architecture}.context_length")
        return int(known.value) if known else DEFAULT_CTX

    @property
    def contexts(self) -> Sequence[int]:
        """Return the contexts that are compared: the one that was asked for, else the usual ones that the model has."""
        if self.request.n_ctx:
            return (self.request.n_ctx,)
        return [n for n in CONTEXTS if n <= self._n_ctx_train] or (self._n_ctx_train,)

    def fitting(self, n_ctx: int) -> Fitting:
        """Return the choices at one context."""
        return Fitting(self.subject, self.problem, self.machine, replace(self.request, n_ctx=n_ctx))

    def check(self) -> None:
        """Raise DoesNotFit where no file can meet the goal at the context that it is made for."""
        self.fitting(self.n_ctx).check(self.goal)

    def table(self, n_ctx: int) -> ContextTable:
        """Return the files at one context; DoesNotFit where no tailored file meets the goal."""
        fitting = self.fitting(n_ctx)
        files = [*fitting.standard(), fitting.tailored(self.goal)]
        return ContextTable(n_ctx, tuple(sorted(files, key=lambda one: one.n_bytes)))


def picture_of(tailoring: Tailoring, table: ContextTable) -> LossPicture | None:
    """Return loss against bytes of standard and tailored files; None where nothing has a loss, as it is without measurements of a type."""
    standard = [
        LossPoint(one.name, one.n_bytes, one.loss)
        for one in table.files
        if one.loss and one is not table.tailored
    ]
    curve = [LossPoint("", *point) for point in tailoring.fitting(table.n_ctx).curve()]
    return LossPicture(standard, curve, table.tailored.n_bytes) if standard and curve else None


def nearest_standard(table: ContextTable) -> str:
    """Return the standard type that a header names for the tailored file: the nearest in size."""
    standard = [one for one in table.files if one.name != "tailored"]
    return min(standard, key=lambda one: abs(one.n_bytes - table.tailored.n_bytes)).name


def problem_by_rules(subject: TailorSubject, candidates: Sequence[GGMLQuantizationType]) -> TailoringProblem:
    """Return a problem in which an error costs the same in every tensor: what is left without an importance matrix.

    The error of a type is that of weights from a normal distribution. Types that need a matrix are left out.
    """
    usable = [one for one in candidates if not one.name.startswith("IQ2") and one.name != "IQ3_XXS"]
    rows = np.random.default_rng(0).standard_normal((16, 4096), np.float32)
    errors = [
        float(np.square(ggml.dequantize(one, ggml.quantize_chunk(one, rows), 4096) - rows).mean())
        for one in usable
    ]
    return _with_errors(subject, usable, errors)


def unmeasured(subject: TailorSubject, goal: TailorGoal, machine: Machine, request: PlanRequest) -> Tailoring:
    """Return a tailoring with the right sizes and placeholder errors, to know how large a file may be before anything is measured."""
    candidates = candidates_for(subject, goal, machine)
    problem = _with_errors(subject, candidates, [1 / BITS_OF_TYPE[one.name] for one in candidates])
    return Tailoring(subject, problem, goal, machine, request)


def _with_errors(
    subject: TailorSubject, types: Sequence[GGMLQuantizationType], errors: Sequence[float]
) -> TailoringProblem:
    losses = {
        tensor.name: np.array(list(_rule_costs(tensor.n_elements, tensor.shape[-1], types, errors)))
        for tensor in subject.model.tensors
        if is_free(tensor)
    }
    return TailoringProblem(subject.model.tensors, tuple(types), losses)


def _rule_costs(
    n_elements: int, n_columns: int, types: Sequence[GGMLQuantizationType], errors: Sequence[float]
) -> Iterator[float]:
    for one, error in zip(types, errors, strict=True):
        yield np.inf if n_columns % BLOCK[one][0] else n_elements * error


__all__ = [
    "ContextTable",
    "Tailoring",
    "nearest_standard",
    "picture_of",
    "problem_by_rules",
    "unmeasured",
]
