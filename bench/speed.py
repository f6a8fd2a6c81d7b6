"""mixcli bench beside llama-bench: the same model, tests and settings, in turns, so that both meet the same machine.

    python -m bench.speed [--model GGUF] [--pairs 10] [-p 512] [-n 128] [-d 0,512] [-r 2] [--as-planned]

Without a model the demo is measured. llama-bench is built first where it was not (bench/peers.py), and loads the model as mixcli's plan has it.
Its context is as long as a test, so mixcli's is too; with --as-planned it is that of a run, which shows what a longer context costs.

Each test is measured in turns A B B A (bench/turns.py). More than LIMIT apart is an error, unless the interval holds it. The range of fewer than
six pairs, and an estimate that other programs disturbed, show nothing of the kind.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import median

from bench.engine.subject import demo
from bench.estimate import MIN_PAIRS, Rounds, most_others, ratio, side_medians
from bench.peers import peers
from bench.turns import N_PAIRS, Side, all_turns
from mixcli.insight.bench import BenchRequest
from mixcli.insight.bench_record import BenchRun, BenchTest
from profiles.placement import Placement

LIMIT = 0.03
MIN_CTX = 256  # tokens; llama.cpp rounds a context up to its next multiple of 256
OURS, THEIRS = "mixcli bench", "llama-bench"
# what llama-bench calls mixcli's load modes, where it calls them otherwise
LOAD_MODES = {"mlock": "mmap+mlock"}


@dataclass(frozen=True)
class SpeedRow:
    """One test: tok/s of both sides, how many times as fast ours is with its interval or range, the pairs, and what others had of the machine at most."""

    test: str
    ours: float
    theirs: float
    ratio: float
    low: float | None
    high: float | None
    is_interval: bool  # low and high are not the range of a few pairs
    n_pairs: int
    is_disturbed: bool
    others: float

    @classmethod
    def of(cls, test: BenchTest, rounds: Rounds) -> "SpeedRow":
        found, sides = ratio(rounds, (OURS, "tok/s"), (THEIRS, "tok/s")), side_medians(rounds)
        ours, theirs = sides[OURS]["tok/s"], sides[THEIRS]["tok/s"]
        return cls(
            test.words,
            ours,
            theirs,
            ratio=found.value,
            low=found.low,
            high=found.high,
            is_interval=found.is_interval,
            n_pairs=found.n_pairs,
            is_disturbed=found.is_disturbed,
            others=most_others(rounds) or 0.0,
        )

    @property
    def is_apart(self) -> bool:
        """Whether the two are surely more than LIMIT apart, which only an interval shows, and only on a quiet machine."""
        if self.low is None or self.high is None or not self.is_interval or self.is_disturbed:
            return False
        return self.low > 1 + LIMIT or self.high < 1 - LIMIT


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--model", type=Path)
    parser.add_argument(
        "--sdist", type=Path, help="unpacked source of llama-cpp-python, if it is there already"
    )
    parser.add_argument("--pairs", type=int, choices=range(1, 100), metavar="N", default=N_PAIRS)
    for option, default in (("-p", "512"), ("-n", "128"), ("-d", "0,512")):
        parser.add_argument(option, type=_numbers, default=default)
    parser.add_argument("-r", type=int, default=2)
    parser.add_argument("--as-planned", action="store_true", help="with the context of a run")
    options = parser.parse_args()
    program = peers(options.sdist).bench
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        model = options.model or demo(Path(folder)).path
        sides = Sides(program, model.absolute(), Path(folder), options.r, is_planned=options.as_planned)
        for test in BenchRequest(options.p, options.n, options.d).tests():
            rows.append(SpeedRow.of(test, all_turns(sides.of(test), options.pairs)))
    print(json.dumps([asdict(row) for row in rows], indent=1))
    if unsure := [row.test for row in rows if row.is_disturbed or not row.is_interval]:
        print(
            f"not judged, for want of {MIN_PAIRS} pairs on a quiet machine: {', '.join(unsure)}",
            file=sys.stderr,
        )
    if apart := [row.test for row in rows if row.is_apart]:
        raise SystemExit(f"more than {100 * LIMIT:.0f} % apart: {', '.join(apart)}")


def _numbers(text: str) -> tuple[int, ...]:
    return tuple(map(int, text.split(",")))


class Sides:
    """Both programs with one model; each measurement is a process of its own, and the median of its repetitions."""

    def __init__(self, program: Path, model: Path, folder: Path, n_repeats: int, *, is_planned: bool) -> None:
        self._program, self._model, self._folder = program, model, folder
        self._n_repeats, self._is_planned = n_repeats, is_planned
        self._placement = Placement()

    def of(self, test: BenchTest) -> tuple[Side, Side]:
        """Return both sides of a test; ours comes first, since theirs takes its placement."""
        return Side(OURS, lambda: self._ours(test)), Side(THEIRS, lambda: self._theirs(test))

    def _ours(self, test: BenchTest) -> dict[str, float]:
        command = [sys.executable, "-m", "mixcli", "bench", str(self._model), *self._work(test), "--json"]
        if not self._is_planned:
            command += ["--ctx", str(max(MIN_CTX, test.n_text))]
        environment = {
            **os.environ,
            "MIXCLI_HOME": str(self._folder / "home"),
            "MIXCLI_MEASURE": "off",
        }
        run = BenchRun.from_data(json.loads(_output(command, environment)))
        self._placement = Placement.from_json(run.placement)
        return {"tok/s": run.results[0].median}

    def _theirs(self, test: BenchTest) -> dict[str, float]:
        command = [str(self._program), "-m", str(self._model), *_load(self._placement), *self._work(test)]
        text = _output([*command, "-o", "jsonl"])
        (row,) = (json.loads(line) for line in text.splitlines() if line.startswith("{"))
        return {"tok/s": median(row["samples_ts"])}

    def _work(self, test: BenchTest) -> list[str]:
        n_prompt, n_decode = (test.n_tokens, 0) if test.kind == "prefill" else (0, test.n_tokens)
        numbers = {"-p": n_prompt, "-n": n_decode, "-d": test.depth, "-r": self._n_repeats}
        return [word for option, number in numbers.items() for word in (option, str(number))]


def _load(placement: Placement) -> list[str]:
    """Return llama-bench's options for the same threads, batches, caches and places of tensors."""
    options = [
        *("-t", str(placement.n_threads), "-b", str(placement.n_batch), "-ub", str(placement.n_ubatch)),
        *("-fa", "on" if placement.flash_attn else "off", "-ctk", placement.type_k, "-ctv", placement.type_v),
        *("-ngl", str(placement.n_gpu_layers), "-nopo", str(int(not placement.op_offload))),
        *("--repack", str(int(placement.repack))),
        *("-lm", LOAD_MODES.get(placement.load_mode, placement.load_mode)),
    ]
    if placement.tensor_split:
        options += ["-ts", "/".join(f"{share:g}" for share in placement.tensor_split)]
    if placement.tensor_overrides:
        options += ["-ot", ";".join(f"{pattern}={buffer}" for pattern, buffer in placement.tensor_overrides)]
    return options


def _output(command: Sequence[str], environment: dict[str, str] | None = None) -> str:
    """Run a program; return what it prints."""
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=environment)
    if done.returncode:
        raise SystemExit(f"{' '.join(command)} ended with {done.returncode}: {done.stderr[-2000:]}")
    return done.stdout


if __name__ == "__main__":
    main()
