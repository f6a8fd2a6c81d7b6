"""mixcli bench beside llama-bench: the same model, tests and settings, in turns, so that both meet the same machine.

    python -m bench.speed [--model GGUF] [--rounds 3] [-p 512] [-n 128] [-d 0,512] [-r 2] [--as-planned]

Without a model the demo is measured. llama-bench is built first where it was not (bench/peers.py), and loads the model as mixcli's plan has it.
Its context is as long as a test, so mixcli's is too; with --as-planned it is that of a run, which shows what a longer context costs.

In each round a test is measured by ours, theirs, theirs, ours (A B B A): two pairs of neighbors in time, whose ratio is free of what the
machine does over minutes. Pairs during which other programs used these cores are measured again. The result is the median of the pairs'
ratios, with a 95 % interval by bootstrap over the pairs; more than LIMIT apart is an error, unless the interval holds it.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from random import Random
from statistics import median

from bench.engine.subject import demo
from bench.peers import peers
from mixcli.insight.bench import BenchRequest
from mixcli.insight.bench_record import BenchRun, BenchTest
from mixcli.system import cpu_use
from profiles.placement import Placement

LIMIT = 0.03
MAX_OTHERS = 0.15  # cores that other programs may use while a side is measured
MAX_TRIES = 3  # times as many rounds as are asked for, on a machine that is not quiet
N_RESAMPLES = 2000
MIN_CTX = 256  # tokens; llama.cpp rounds a context up to its next multiple of 256
# what llama-bench calls mixcli's load modes, where it calls them otherwise
LOAD_MODES = {"mlock": "mmap+mlock"}


@dataclass(frozen=True)
class Measured:
    """The tok/s of one side, and how many of the cores that it may use other programs had meanwhile."""

    rate: float
    others: float = 0.0


@dataclass(frozen=True)
class Pair:
    """Both sides, measured one right after the other."""

    ours: Measured
    theirs: Measured

    @property
    def ratio(self) -> float:
        return self.ours.rate / self.theirs.rate

    @property
    def is_quiet(self) -> bool:
        return max(self.ours.others, self.theirs.others) <= MAX_OTHERS


@dataclass(frozen=True)
class SpeedRow:
    """One test: tok/s of both sides, how many times as fast ours is, the ends of the interval, and how many pairs that is from."""

    test: str
    ours: float
    theirs: float
    ratio: float
    low: float
    high: float
    n_pairs: int

    @classmethod
    def of(cls, test: BenchTest, pairs: Sequence[Pair]) -> "SpeedRow":
        ratios = [pair.ratio for pair in pairs]
        low, high = interval(ratios)
        ours, theirs = median(pair.ours.rate for pair in pairs), median(pair.theirs.rate for pair in pairs)
        return cls(test.words, ours, theirs, median(ratios), low, high, len(pairs))

    @property
    def is_apart(self) -> bool:
        """Whether the two are surely more than LIMIT apart."""
        return self.low > 1 + LIMIT or self.high < 1 - LIMIT


def interval(ratios: Sequence[float]) -> tuple[float, float]:
    """Return the 95 % interval of a median by bootstrap, the same one every time."""
    draw = Random(0)
    found = sorted(median(draw.choices(ratios, k=len(ratios))) for _ in range(N_RESAMPLES))
    tail = round(0.025 * N_RESAMPLES)
    return found[tail], found[-tail - 1]


def turns(ours: Callable[[], Measured], theirs: Callable[[], Measured]) -> list[Pair]:
    """Measure A B B A, and return the two pairs."""
    first = Pair(ours(), theirs())
    last = theirs()
    return [first, Pair(ours(), last)]


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--model", type=Path)
    parser.add_argument(
        "--sdist", type=Path, help="unpacked source of llama-cpp-python, if it is there already"
    )
    parser.add_argument("--rounds", type=int, default=3)
    for option, default in (("-p", "512"), ("-n", "128"), ("-d", "0,512")):
        parser.add_argument(option, type=_numbers, default=default)
    parser.add_argument("-r", type=int, default=2)
    parser.add_argument("--as-planned", action="store_true", help="with the context of a run")
    options = parser.parse_args()
    program = peers(options.sdist).bench
    tests = BenchRequest(options.p, options.n, options.d).tests()
    pairs: dict[BenchTest, list[Pair]] = {test: [] for test in tests}
    with tempfile.TemporaryDirectory() as folder:
        model = options.model or demo(Path(folder)).path
        sides = Sides(program, model.absolute(), Path(folder), options.r, is_planned=options.as_planned)
        for _ in range(MAX_TRIES * options.rounds):
            for test in tests:
                if len(pairs[test]) < 2 * options.rounds:
                    pairs[test] += _quiet(test, turns(*sides.of(test)))
    if busy := [test.words for test in tests if not pairs[test]]:
        raise SystemExit(
            f"other programs used these cores all the time: nothing is known of {', '.join(busy)}"
        )
    rows = [SpeedRow.of(test, found) for test, found in pairs.items()]
    print(json.dumps([asdict(row) for row in rows], indent=1))
    if apart := [row.test for row in rows if row.is_apart]:
        raise SystemExit(f"more than {100 * LIMIT:.0f} % apart: {', '.join(apart)}")


def _quiet(test: BenchTest, pairs: Sequence[Pair]) -> list[Pair]:
    """Return the pairs that nothing disturbed, and print all."""
    for pair in pairs:
        others = f"{pair.ours.others:.2f} and {pair.theirs.others:.2f}"
        kept = "" if pair.is_quiet else f", not counted: others used {others} cores"
        print(f"{test.words}: {pair.ratio:.3f}{kept}", file=sys.stderr, flush=True)
    return [pair for pair in pairs if pair.is_quiet]


def _numbers(text: str) -> tuple[int, ...]:
    return tuple(map(int, text.split(",")))


class Sides:
    """Both programs with one model; each measurement is a process of its own, and the median of its repetitions."""

    def __init__(self, program: Path, model: Path, folder: Path, n_repeats: int, *, is_planned: bool) -> None:
        self._program, self._model, self._folder = program, model, folder
        self._n_repeats, self._is_planned = n_repeats, is_planned
        self._placement = Placement()

    def of(self, test: BenchTest) -> tuple[Callable[[], Measured], Callable[[], Measured]]:
        """Return what measures our side and theirs; ours comes first, since theirs takes its placement."""
        return lambda: self._ours(test), lambda: self._theirs(test)

    def _ours(self, test: BenchTest) -> Measured:
        command = [sys.executable, "-m", "mixcli", "bench", str(self._model), *self._work(test), "--json"]
        if not self._is_planned:
            command += ["--ctx", str(max(MIN_CTX, test.n_text))]
        environment = {
            **os.environ,
            "MIXCLI_HOME": str(self._folder / "home"),
            "MIXCLI_MEASURE": "off",
        }
        text, others = _output(command, environment)
        run = BenchRun.from_data(json.loads(text))
        self._placement = Placement.from_json(run.placement)
        return Measured(run.results[0].median, others)

    def _theirs(self, test: BenchTest) -> Measured:
        command = [str(self._program), "-m", str(self._model), *_load(self._placement), *self._work(test)]
        text, others = _output([*command, "-o", "jsonl"])
        (row,) = (json.loads(line) for line in text.splitlines() if line.startswith("{"))
        return Measured(median(row["samples_ts"]), others)

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


def _output(command: Sequence[str], environment: dict[str, str] | None = None) -> tuple[str, float]:
    """Run a program; return what it prints, and how many of the cores that it may use other programs had meanwhile."""
    before, began = _busy_seconds(), time.monotonic()
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=environment)
    others = max(0.0, _busy_seconds() - before) / (time.monotonic() - began)
    if done.returncode:
        raise SystemExit(f"{' '.join(command)} ended with {done.returncode}: {done.stderr[-2000:]}")
    return done.stdout, others


def _busy_seconds() -> float:
    """Return how long the cores that this process may use have worked for others; 0 where the system does not tell."""
    reading = cpu_use.read()
    return reading.busy - sum(os.times()[:4]) if reading else 0.0  # with the children that have ended


if __name__ == "__main__":
    main()
