"""Importance matrices, perplexity and KL divergence, side by side with llama.cpp's programs on the same tokens in the same batches.

    python -m bench.insight [--sdist UNPACKED] [--model GGUF [--baseline GGUF]] [--chunks 6] [--threads 2] [--work FOLDER]

llama-imatrix, llama-perplexity and llama-quantize are compiled first where they were not (bench/peers.py). Without a model a dense and a
Mixtral-like one are made, with weights drawn at random and Mistral's vocabulary. Both sides compute with as many threads and without repacking, since another order of additions is another result.
"""

import argparse
import contextlib
import json
import re
import subprocess
import tempfile
from collections.abc import Iterator
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import numpy as np

from bench.peers import with_tools
from mixcli.host.protocol.host_spec import LoadPlan
from mixcli.insight import job
from mixcli.insight.imatrix_file import read_partial, write_imatrix
from mixcli.insight.orders import N_CTX, ImatrixOrder, PerplexityOrder, TextReading, n_at_once
from mixcli.insight.pieces import HELD_OUT, TextPiece, shipped
from mixcli.insight.statistics import TextScores
from mixcli.system.console import console
from profiles.placement import Placement
from quantize import Options, convert
from quantize.imatrix import read_imatrix
from tests.support.synthetic import resized, shape_named, write_model

N_TRIES = 5
_DATASET = "text.txt"


@dataclass(frozen=True)
class Agreement:
    """How a model's results compare: largest relative differences of importance, perplexity and mean KL; whether bytes are equal."""

    model: str
    n_tensors: int
    imatrix: float
    imatrix_bytes_equal: bool
    quantized_bytes_equal: bool
    perplexity: float
    perplexity_theirs: float
    kl: float | None = None
    kl_theirs: float | None = None


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument(
        "--sdist", type=Path, help="unpacked source of llama-cpp-python, if it is there already"
    )
    parser.add_argument("--model", type=Path)
    parser.add_argument("--baseline", type=Path)
    parser.add_argument("--chunks", type=int, default=6)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--work", type=Path, help="keeps the files that are made")
    options = parser.parse_args()
    programs = with_tools(options.sdist).folder
    with _folder(options.work) as work:
        (work / _DATASET).write_text(
            "\n".join(piece.text for piece in shipped(HELD_OUT) if piece.text), "utf-8"
        )
        sides = Sides(programs, work, options.chunks, options.threads)
        models = [options.model] if options.model else [made(work, name) for name in ("dense", "mixtral")]
        for model in models:
            print(json.dumps(asdict(sides.compare(model, options.baseline)), indent=1), flush=True)


@contextlib.contextmanager
def _folder(given: Path | None) -> Iterator[Path]:
    if given:
        given.mkdir(parents=True, exist_ok=True)
        yield given.resolve()
    else:
        with tempfile.TemporaryDirectory() as made:
            yield Path(made)


def made(work: Path, name: str) -> Path:
    """Make a model of four layers in Q8_0: dense, or of eight experts that differ."""
    facts = resized(shape_named("mixtral-8x7b", 4), 512, 512)
    if name == "dense":
        facts = replace(facts, n_expert=0, n_expert_used=0)
    return write_model(work / f"{name}.gguf", facts, "Q8_0")


@dataclass(frozen=True)
class Sides:
    """Both programs, on one text."""

    programs: Path
    work: Path
    n_chunks: int
    n_threads: int

    def compare(self, model: Path, baseline: Path | None) -> Agreement:
        """Compute everything twice."""
        theirs, ours = self.work / "theirs" / "m.gguf", self.work / "ours" / "m.gguf"
        for path in (theirs, ours):
            path.parent.mkdir(exist_ok=True)
            path.unlink(missing_ok=True)
        self._theirs("llama-imatrix", "-m", str(model), "--no-ppl", "-o", str(theirs))
        self._imatrix(model, ours)
        quantized = [self._quantized(model, path) for path in (theirs, ours)]
        base = baseline or model
        low = model if baseline else self._quantized(model, ours)
        logits = self.work / "logits"
        ppl = self._figure(r"PPL = ([\d.]+)", base, "--kl-divergence-base", str(logits))
        kl = self._figure(
            r"Mean\s+KLD:\s+([\d.]+)", low, "--kl-divergence-base", str(logits), "--kl-divergence"
        )
        size = logits.stat().st_size
        logits.unlink()
        scores = self._scores(low, base)
        print(f"{size:,} bytes of logits against {(self.work / 'baseline').stat().st_size:,}", flush=True)
        assert scores.baseline_perplexity
        assert scores.kl_mean
        return Agreement(
            model.name,
            *_differences(theirs, ours),
            theirs.read_bytes() == ours.read_bytes(),
            quantized[0].read_bytes() == quantized[1].read_bytes(),
            scores.baseline_perplexity.value,
            ppl,
            scores.kl_mean.value,
            kl,
        )

    def _figure(self, pattern: str, model: Path, *arguments: str) -> float:
        """Return a number that llama-perplexity prints; it may end before its log is written, so it runs again where it is missing."""
        for _ in range(N_TRIES):
            if match := re.search(pattern, self._theirs("llama-perplexity", "-m", str(model), *arguments)):
                return float(match[1])
        raise SystemExit(f"llama-perplexity printed no {pattern} in {N_TRIES} runs.")

    def _theirs(self, program: str, *arguments: str) -> str:
        alike = [
            *("-t", str(self.n_threads), "-tb", str(self.n_threads), "--no-repack"),
            *("-fa", "on", "-ngl", "0", "-c", str(N_CTX)),
        ]
        command = [str(self.programs / program), *arguments, *alike, "-f", _DATASET]
        out, log = self.work / "out", self.work / "log"
        with out.open("wb") as first, log.open("wb") as second:  # into a pipe the last lines get lost
            done = subprocess.run(
                [*command, "--chunks", str(self.n_chunks)],
                cwd=self.work,
                stdout=first,
                stderr=second,
                check=False,
            )
        text = "".join(path.read_text("utf-8", "replace") for path in (out, log))
        if done.returncode:
            raise SystemExit(f"{' '.join(command)} failed:\n{text[-2000:]}")
        return text

    def _reading(self, model: Path) -> TextReading:
        n = n_at_once(N_CTX)
        placement = Placement(
            n_ctx=n * N_CTX,
            n_batch=N_CTX,
            n_ubatch=N_CTX,
            n_seq_max=n,
            n_threads=self.n_threads,
            n_threads_batch=self.n_threads,
            repack=False,
        )
        piece = TextPiece(_DATASET, "prose", (self.work / _DATASET).read_text("utf-8"))
        return TextReading(model.absolute(), LoadPlan(placement), (piece,), N_CTX, self.n_chunks)

    def _imatrix(self, model: Path, target: Path) -> None:
        part = self.work / "part"
        part.unlink(missing_ok=True)
        with console.progress("") as bar:
            job.run(ImatrixOrder(self._reading(model), part, "bench"), model.name, bar)
        found = read_partial(part, "bench")
        assert found
        write_imatrix(target, found.entries, N_CTX, _DATASET)

    def _scores(self, model: Path, baseline: Path) -> TextScores:
        kept = self.work / "baseline"
        with console.progress("") as bar:
            job.run(PerplexityOrder(self._reading(baseline), write_baseline=kept), baseline.name, bar)
            found = job.run(PerplexityOrder(self._reading(model), read_baseline=kept), model.name, bar)
        return TextScores.from_data(found["rows"][0])

    def _quantized(self, model: Path, imatrix: Path) -> Path:
        """Quantize by llama-quantize with their matrix, by mixcli with ours; each in its folder, since the name is recorded."""
        target = imatrix.with_name("quantized.gguf")
        target.unlink(missing_ok=True)
        if imatrix.parent.name == "ours":
            convert(
                model,
                target,
                Options(
                    output_type="Q3_K_M", imatrix=imatrix, allow_requantize=True, n_threads=self.n_threads
                ),
            )
        else:
            command = [str(self.programs / "llama-quantize"), "--allow-requantize", "--imatrix", imatrix.name]
            subprocess.run(
                [*command, str(model), target.name, "Q3_K_M", str(self.n_threads)],
                cwd=imatrix.parent,
                capture_output=True,
                check=True,
            )
        return target


def _differences(theirs: Path, ours: Path) -> tuple[int, float]:
    """Return the number of tensors and the largest difference of a column, against the mean of its matrix."""
    first, second = read_imatrix(theirs).entries, read_imatrix(ours).entries
    if first.keys() != second.keys():
        raise SystemExit(f"tensors differ: {sorted(first.keys() ^ second.keys())}")
    off = max(float(np.abs(first[name] - second[name]).max() / first[name].mean()) for name in first)
    return len(first), off


if __name__ == "__main__":
    main()
