"""Tailored files of small models beside llama.cpp's standard mixes: what an error costs, the types that follow, and their divergence."""

import json
from collections.abc import Sequence
from dataclasses import replace
from functools import cached_property
from pathlib import Path

from mixcli.insight.compute.importance import sum_up, tap_of
from mixcli.insight.imatrix_file import write_imatrix
from mixcli.insight.importance import ImportanceSums
from mixcli.insight.orders import ImatrixOrder
from mixcli.insight.pieces import CALIBRATION
from quantize.ggml_types import GGMLQuantizationType
from quantize.imatrix import Imatrix, read_imatrix
from quantize.plan import plan_write
from quantize.recipe import choose_types
from quantize.source import TensorSource
from quantize.sources.gguf_source import open_gguf
from quantize.tailor.choice import CANDIDATES, TailoredTypes, TailoringProblem, Types, is_free
from quantize.tailor.error_table import ErrorTable, measure_errors
from quantize.tailor.objective import losses, plain_losses
from quantize.tailor.statistics import Statistics, read_statistics
from quantize.writer import execute
from tests.support.quality import N_CTX, baseline, divergence, loaded, part_of, reading_of


def write_statistics(model: Path, target: Path, n_characters: int, n_threads: int = 1) -> Path:
    """Write what a pass over the calibration texts gives: importance and sensitivity."""
    reading = reading_of(model, part_of(CALIBRATION, n_characters), n_threads=n_threads)
    partial = target.with_name(f"{target.name}.part")
    partial.unlink(missing_ok=True)
    order, sums = ImatrixOrder(reading, partial, "test", with_sensitivity=True), ImportanceSums()
    with loaded(reading, tap_of(order, sums)) as (opened, context):
        sum_up(order, opened, context, sums, lambda *_: None, lambda _: None)
    partial.unlink()
    write_imatrix(target, sums.entries, N_CTX, "calibration")
    return target


class TailoringLab:
    """A model in BF16 and a folder, in which what is done is kept: run it again to continue.

    `n_calibration` and `n_held_out` are characters of each text.
    """

    def __init__(
        self,
        source: Path,
        work: Path,
        candidates: Sequence[GGMLQuantizationType] = CANDIDATES,
        n_calibration: int = 500,
        n_held_out: int = 500,
        n_threads: int = 1,
    ) -> None:
        self.source, self._work, self._candidates = source, work, tuple(candidates)
        self._n_calibration, self._n_held_out, self._n_threads = n_calibration, n_held_out, n_threads
        self.model = open_gguf(source)
        self._results = work / f"results-{n_calibration}-{n_held_out}.json"
        self._first: dict[tuple[str, str], TensorSource] = {}  # tensors of the first file, by name and type
        self.known: dict[str, float] = json.loads(self._results.read_text()) if self._results.exists() else {}

    @cached_property
    def _statistics_file(self) -> Path:
        path = self._work / f"statistics-{self._n_calibration}.gguf"
        if not path.exists():
            write_statistics(self.source, path, self._n_calibration, self._n_threads)
        return path

    @cached_property
    def statistics(self) -> Statistics:
        return read_statistics(self._statistics_file)

    @cached_property
    def imatrix(self) -> Imatrix:
        return read_imatrix(self._statistics_file)

    @cached_property
    def table(self) -> ErrorTable:
        free = [one for one in self.model.tensors if is_free(one)]
        name = f"errors-{self._n_calibration}-{len(self._candidates)}"
        return measure_errors(free, self._candidates, self.statistics, self.imatrix, self._work / name, self.statistics.digest, n_threads=self._n_threads)  # fmt: skip

    @cached_property
    def problem(self) -> TailoringProblem:
        """Return the problem by the product's objective."""
        return TailoringProblem(self.model.tensors, self._candidates, losses(self.table, self.statistics))

    @cached_property
    def plain(self) -> TailoringProblem:
        """Return the problem by the plain sum of weighted errors."""
        return TailoringProblem(self.model.tensors, self._candidates, plain_losses(self.table))

    def standard(self, name: str) -> Types:
        """Return llama.cpp's own mix."""
        return choose_types(self.model, name, imatrix=True)

    def between(self, low: str, high: str, share: float) -> int:
        """Return the bytes that lie so far on the way from one mix to another."""
        below, above = (self.problem.n_bytes(self.standard(name)) for name in (low, high))
        return int(below + share * (above - below))

    def write(self, types: Types | TailoredTypes | None, path: Path) -> Path:
        """Write a file with these types; what the first file has in the same type is copied from it."""
        assert types is not None
        chosen = types.types if isinstance(types, TailoredTypes) else types
        tensors = [self._first.get((one.name, chosen[one.name].name), one) for one in self.model.tensors]
        model = replace(self.model, tensors=tensors)
        execute(plan_write(model, path, chosen, "Q4_K_M", imatrix=self.imatrix, n_threads=self._n_threads))
        return path

    def divergence(self, what: str, types: Types | TailoredTypes | None) -> float:
        """Return the mean KL divergence of a file with these types from the model, in nats, on the held-out texts."""
        if what not in self.known:
            path = self.write(types, self._work / ("candidate.gguf" if self._first else "first.gguf"))
            self._first = self._first or {(one.name, one.dtype): one for one in open_gguf(path).tensors}
            kept = self._work / f"baseline-{self._n_held_out}"
            if not kept.exists():
                baseline(self.source, kept, self._n_held_out, self._n_threads)
            mean = divergence(path, kept, self._n_held_out, self._n_threads)["all"].kl_mean
            assert mean
            self.known[what] = mean.value
            self._results.write_text(json.dumps(self.known))
        return self.known[what]
