"""Checkpoint to Q4_K_M: mixcli's one pass against llama.cpp's two steps, same machine, same minutes, same thread count, same bytes.

    python -m bench.quantize [--layers 1] [--threads 2] [--pairs 4] [--folder DIR]

Makes a checkpoint with the layer shapes of Mixtral 8x7B (bench/checkpoint.py; 3.4 GB for one layer) and converts it in processes of
their own: `mixcli convert`; the same without the extra `fast`; llama.cpp's convert_hf_to_gguf.py to BF16 and then llama_model_quantize,
which is what the program llama-quantize calls; and `mixcli quantize` from that same BF16 file. Routes take turns (bench/turns.py). Compares the results tensor by tensor, writes bench/results/quantize.json, and docs/benchmarks.md again.
The first use installs llama.cpp's converter under build/reference (bench/reference.py). Needs 14 GB of disk for a layer.
"""

import argparse
import os
import sys
import tempfile
from dataclasses import asdict, dataclass, field
from pathlib import Path

from bench.checkpoint import check_disk, make_checkpoint, n_weights
from bench.estimate import Numbers, Rounds, Verdict
from bench.process import measure
from bench.quantize_page import quantize_findings, quantize_table
from bench.reference import Reference, reference
from bench.report import RESULTS, write_result
from bench.report import main as write_docs
from bench.turns import N_LONG_PAIRS, Side, take_turns
from quantize.recipe import FILE_TYPES
from quantize.sources.gguf_header import read_header

TYPE = "Q4_K_M"
CHUNK = 1 << 24
# kernels.py then leaves everything to the library, as when numba is missing
NO_FAST = {"NUMBA_DISABLE_JIT": "1"}


@dataclass
class Bench:
    """One checkpoint and everything that is measured on it. The numbers of a route have the names of its rows before them, as `_name` makes them."""

    folder: Path
    threads: int
    reference: Reference
    differing: dict[str, list[str]] = field(default_factory=dict)

    @property
    def source(self) -> Path:
        return self.folder / "hf"

    def one_pass(self) -> Numbers:
        return self._measure("one_pass", self._mixcli("convert", self.source, "one_pass"))

    def without_fast(self) -> Numbers:
        return self._measure("without_fast", self._mixcli("convert", self.source, "without_fast"), NO_FAST)

    def two_steps(self) -> Numbers:
        bf16 = self.folder / "bf16.gguf"
        converter = [str(self.reference.python), str(self.reference.script)]
        first = [*converter, str(self.source), "--outfile", str(bf16), "--outtype", "bf16"]
        found = dict(
            self._measure("to_bf16", first, {"OMP_NUM_THREADS": str(self.threads), "HF_HUB_OFFLINE": "1"})
        )
        second = [str(bf16), str(self._target("llama_quantize")), str(FILE_TYPES[TYPE]), str(self.threads)]
        warm(bf16)
        found |= self._measure("llama_quantize", [sys.executable, "-m", "bench.llama_quantize", *second])
        warm(bf16)
        found |= self._measure("from_bf16", self._mixcli("quantize", bf16, "from_bf16"))
        bf16.unlink()
        return found

    def first_time(self) -> Numbers:
        """The one pass on the day that mixcli was installed: the kernels are compiled and checked on the way, then kept."""
        return self._measure("first_time", self._mixcli("convert", self.source, "first_time"))

    def compare(self) -> None:
        """Hold all results against llama.cpp's, then delete them."""
        theirs = self._target("llama_quantize")
        for ours in sorted({*self.folder.glob("*.gguf")} - {theirs}):
            row = ours.stem
            self.differing[row] = sorted({*self.differing.get(row, ()), *differing_tensors(ours, theirs)})
        for path in self.folder.glob("*.gguf"):
            path.unlink()

    def result(self, n_layer: int, rounds: Rounds) -> dict[str, object]:
        """Everything that has been measured so far, as bench/quantize_page.py reads it."""
        return {
            "layers": n_layer,
            "weights": n_weights(n_layer),
            "output_type": TYPE,
            "threads": self.threads,
            "rows": rows(rounds),
            "differing_tensors": self.differing,
        }

    def _mixcli(self, command: str, source: Path, row: str) -> list[str]:
        type_ = [TYPE] if command == "quantize" else ["--output-type", TYPE]
        options = ["--output", str(self._target(row)), "--threads", str(self.threads)]
        return [sys.executable, "-m", "mixcli", command, str(source), *type_, *options]

    def _target(self, row: str) -> Path:
        return self.folder / f"{row}.gguf"

    def _measure(self, row: str, command: list[str], environment: dict[str, str] | None = None) -> Numbers:
        warm(self.source)
        self._target(row).unlink(missing_ok=True)
        own = {"TMPDIR": str(self.folder), "NUMBA_CACHE_DIR": str(self.folder / "cache")}
        cost = measure(command, self.folder, {**own, **(environment or {})})
        print(
            f"  {row:15} {cost.seconds:7.1f} s, {cost.cpu_seconds:7.1f} s of CPU; others had {cost.others:.0%} of the machine",
            flush=True,
        )
        return {_name(row, name): round(value, 3) for name, value in asdict(cost).items()}


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--layers", type=int, default=1)
    parser.add_argument("--threads", type=int, default=len(os.sched_getaffinity(0)))
    parser.add_argument(
        "--pairs", type=int, choices=range(1, 100), metavar="N", default=N_LONG_PAIRS, help="(%(default)s)"
    )
    parser.add_argument("--folder", type=Path, help="where to work (default: the temporary folder)")
    parser.add_argument(
        "--sdist", type=Path, help="unpacked source of llama-cpp-python, if it is there already"
    )
    parser.add_argument("--python", type=Path, help="a Python with torch, if there is one already")
    parser.add_argument("--json", type=Path, default=RESULTS / "quantize.json")
    options = parser.parse_args()
    weights = n_weights(options.layers)
    check_disk(options.folder or Path(tempfile.gettempdir()), 8 * weights)
    converter = reference(options.sdist, options.python)
    with tempfile.TemporaryDirectory(dir=options.folder, prefix="bench-quantize-") as temporary:
        bench = Bench(Path(temporary), options.threads, converter)
        print(
            f"making a checkpoint of {options.layers} layer(s), {weights / 1e6:,.0f} million weights",
            flush=True,
        )
        make_checkpoint(bench.source, options.layers)
        once = {"first_time": [bench.first_time()]}
        routes = (bench.one_pass, bench.two_steps, bench.without_fast)
        sides = [Side(route.__name__, route) for route in routes]
        result: dict[str, object] = {}
        for rounds in take_turns(sides, options.pairs, show=False):
            bench.compare()
            result = bench.result(options.layers, {**once, **rounds})
            write_result(
                options.json, result
            )  # after every pass: a machine that goes down takes little along
    found = quantize_findings(result)
    print("\n".join(["", *quantize_table(result), "", *(one.line for one in found)]))
    if options.json == RESULTS / "quantize.json":
        write_docs()
    return int(any(one.verdict == Verdict.NOT_KEPT for one in found))


def _name(row: str, number: str) -> str:
    return f"{row}: {number}"


def rows(rounds: Rounds) -> dict[str, list[dict[str, float]]]:
    """Return the costs of every row, pass by pass, of numbers with names as `_name` makes them."""
    found: dict[str, list[dict[str, float]]] = {}
    for passes in rounds.values():
        for numbers in passes:
            costs: dict[str, dict[str, float]] = {}
            for name, value in numbers.items():
                row, colon, number = name.partition(": ")
                if colon:
                    costs.setdefault(row, {})[number] = value
            for row, cost in costs.items():
                found.setdefault(row, []).append(cost)
    return found


def warm(path: Path) -> None:
    """Read a file, or a folder's files, once, so that the route that comes first is not slower."""
    for file in sorted(path.iterdir()) if path.is_dir() else [path]:
        with file.open("rb", buffering=0) as opened:
            buffer = bytearray(CHUNK)
            while opened.readinto(buffer):
                pass


def differing_tensors(ours: Path, theirs: Path) -> list[str]:
    """Names of tensors that one file lacks, or that differ in type, shape or any byte."""
    headers = [{tensor.name: tensor for tensor in read_header(path).tensors} for path in (ours, theirs)]
    names = sorted(headers[0].keys() ^ headers[1].keys())
    with ours.open("rb") as one, theirs.open("rb") as other:
        for name in headers[0].keys() & headers[1].keys():
            a, b = headers[0][name], headers[1][name]
            one.seek(a.offset)
            other.seek(b.offset)
            same = (a.type, a.shape, a.n_bytes) == (b.type, b.shape, b.n_bytes)
            for at in range(0, a.n_bytes if same else 0, CHUNK):
                n = min(CHUNK, a.n_bytes - at)
                same = same and one.read(n) == other.read(n)
            if not same:
                names.append(name)
    return names


if __name__ == "__main__":
    sys.exit(main())
