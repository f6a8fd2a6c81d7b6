"""mixcli bench beside llama-bench: the same model, tests and plan, one after the other in turns, so that both meet the same machine.

    python -m bench.speed [--model GGUF] [--rounds 3] [-p 512] [-n 128] [-d 0,512] [-r 3]

Without a model the demo is measured. llama-bench is built first where it was not (bench/peers.py), and loads the model as mixcli's plan has it.
The result are medians over all repetitions of all rounds, and their ratio with its 95 % interval; more than LIMIT apart is an error, unless
the interval holds it.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import median

from bench.engine.subject import demo
from bench.peers import peers
from mixcli.insight.bench_record import BenchRun, BenchTest, ratio_of
from profiles.placement import Placement

LIMIT = 0.03
Rates = dict[BenchTest, list[float]]


@dataclass(frozen=True)
class SpeedRow:
    """One test: tok/s of both sides, how many times as fast ours is, and the ends of the interval."""

    test: str
    ours: float
    theirs: float
    ratio: float
    low: float | None
    high: float | None

    @property
    def is_apart(self) -> bool:
        """Whether the two are surely more than LIMIT apart."""
        low, high = (self.ratio if end is None else end for end in (self.low, self.high))
        return low > 1 + LIMIT or high < 1 - LIMIT


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--model", type=Path)
    parser.add_argument(
        "--sdist", type=Path, help="unpacked source of llama-cpp-python, if it is there already"
    )
    parser.add_argument("--rounds", type=int, default=3)
    for option, default in (("-p", "512"), ("-n", "128"), ("-d", "0,512"), ("-r", "3")):
        parser.add_argument(option, default=default)
    options = parser.parse_args()
    program = peers(options.sdist).bench
    work = ["-p", options.p, "-n", options.n, "-d", options.d, "-r", options.r]
    ours: Rates = {}
    theirs: Rates = {}
    with tempfile.TemporaryDirectory() as folder:
        model = options.model or demo(Path(folder)).path
        for _ in range(options.rounds):
            run = _ours(model, work, Path(folder))
            for one in run.results:
                ours.setdefault(one.test, []).extend(one.rates)
            for test, rates in _theirs(program, model, work, Placement.from_json(run.placement)).items():
                theirs.setdefault(test, []).extend(rates)
    rows = [_row(test, rates, theirs[test]) for test, rates in ours.items()]
    print(json.dumps([asdict(row) for row in rows], indent=1))
    if apart := [row.test for row in rows if row.is_apart]:
        raise SystemExit(f"more than {100 * LIMIT:.0f} % apart: {', '.join(apart)}")


def _row(test: BenchTest, ours: list[float], theirs: list[float]) -> SpeedRow:
    ratio = ratio_of(ours, theirs)
    return SpeedRow(test.words, median(ours), median(theirs), ratio.value, ratio.low, ratio.high)


def _ours(model: Path, work: list[str], folder: Path) -> BenchRun:
    command = [sys.executable, "-m", "mixcli", "bench", str(model), *work, "--json"]
    environment = {**os.environ, "MIXCLI_HOME": str(folder / "home"), "MIXCLI_MEASURE": "off"}
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=environment)
    if done.returncode:
        raise SystemExit(f"{' '.join(command)} ended with {done.returncode}: {done.stderr[-2000:]}")
    sys.stderr.write(done.stderr)
    return BenchRun.from_data(json.loads(done.stdout))


def _theirs(program: Path, model: Path, work: list[str], placement: Placement) -> Rates:
    """Return llama-bench's samples for each test, with the same threads, batches, caches and places of tensors."""
    options = [
        *("-t", str(placement.n_threads), "-b", str(placement.n_batch), "-ub", str(placement.n_ubatch)),
        *("-fa", "on" if placement.flash_attn else "off", "-ctk", placement.type_k, "-ctv", placement.type_v),
        *("-ngl", str(placement.n_gpu_layers), "-nopo", str(int(not placement.op_offload))),
        *("--repack", str(int(placement.repack)), "-lm", placement.load_mode),
    ]
    if placement.tensor_split:
        options += ["-ts", "/".join(f"{share:g}" for share in placement.tensor_split)]
    if placement.tensor_overrides:
        options += ["-ot", ";".join(f"{pattern}={buffer}" for pattern, buffer in placement.tensor_overrides)]
    command = [str(program), "-m", str(model), *options, *work, "-o", "jsonl"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    lines = [json.loads(line) for line in done.stdout.splitlines() if line.startswith("{")]
    if done.returncode or not lines:
        raise SystemExit(f"{' '.join(command)} ended with {done.returncode}: {done.stderr[-2000:]}")
    return {_test(row): row["samples_ts"] for row in lines}


def _test(row: dict[str, int]) -> BenchTest:
    """Return which test a line of llama-bench is of."""
    if n := row["n_prompt"]:
        return BenchTest("prefill", n, row["n_depth"])
    return BenchTest("decode", row["n_gen"], row["n_depth"])


if __name__ == "__main__":
    main()
