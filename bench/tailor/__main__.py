"""python -m bench.tailor quality|cost|peer [--model dense|mixture|GGUF] [--only Q3_K_M,between] [--calibration N] [--held-out N] [--seconds N]

`quality` measures tailored files against llama.cpp's standard mixes (quality.py). The built-in calibration texts are read whole, unless
--calibration is the number of characters of each; --held-out is that of the texts on which files are measured. What is done is kept in
--work: rerun the command to resume; with --seconds it stops after the comparison that is being measured then. `cost` measures the time of `mixcli tailor`
(cost.py), `peer` whether llama.cpp's own programs load a tailored file (peer.py). The results are in bench/results/tailor.json.
"""

import argparse
import json
import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from bench.peers import peers
from bench.report import RESULTS, machine, write_result
from bench.tailor.cost import sides
from bench.tailor.page import tailor_findings
from bench.tailor.peer import checked
from bench.tailor.quality import BUDGETS, MODELS, compared, made
from bench.turns import take_turns
from tests.support.off_grid import N_LAYER, N_VOCAB
from tests.support.tailoring import TailoringLab

ALL = 1 << 20  # characters, more than any text has
Keep = Callable[[str, dict[str, Any]], None]


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("scenario", choices=["quality", "cost", "peer"])
    parser.add_argument("--model", default=MODELS[0])
    parser.add_argument("--only", default=",".join(BUDGETS))
    parser.add_argument("--work", type=Path, default=Path("build/tailor"))
    parser.add_argument("--layers", type=int, help="30 of the models of quality and peer, 1 of that of cost")
    parser.add_argument("--vocabulary", type=int, default=N_VOCAB)
    parser.add_argument("--calibration", type=int, default=ALL, help="characters of each text")
    parser.add_argument("--held-out", type=int, default=1900, help="characters of each text")
    parser.add_argument("--chunks", type=int, default=1, help="of 512 tokens, that cost reads")
    parser.add_argument("--pairs", type=int, default=2, help="that cost measures")
    parser.add_argument("--threads", type=int, default=len(os.sched_getaffinity(0)))
    parser.add_argument("--seconds", type=float, default=1e9)
    parser.add_argument(
        "--sdist", type=Path, help="unpacked source of llama-cpp-python, if it is there already"
    )
    parser.add_argument("--json", type=Path, default=RESULTS / "tailor.json")
    options = parser.parse_args()
    options.work.mkdir(parents=True, exist_ok=True)
    {"quality": quality, "cost": cost, "peer": peer}[options.scenario](options)


def quality(options: argparse.Namespace) -> None:
    """Compare files of one model, and keep each comparison."""
    started = time.monotonic()
    lab = _lab(options)
    for found in compared(lab, options.only.split(",")):
        print(found.words, flush=True)
        sizes = {"calibration_tokens": lab.statistics.n_tokens, "held_out_characters": options.held_out}
        _keep(
            options.json,
            "quality",
            f"{options.model}: {found.budget}, against {found.against}",
            {**found.to_data(), **sizes},
        )
        if time.monotonic() - started > options.seconds:
            return


def cost(options: argparse.Namespace) -> None:
    """Measure what a tailored file costs beside the plain one pass."""
    both = sides(options.work.absolute(), options.layers or 1, options.chunks)
    for rounds in take_turns(both, options.pairs):
        results = _results(options.json)
        results["cost"] = {"rounds": rounds, "chunks": options.chunks, "machine": machine()}
        write_result(options.json, results)
        for one in tailor_findings(results):
            print(one.line, flush=True)


def peer(options: argparse.Namespace) -> None:
    """Let llama.cpp's programs load a tailored file."""
    path = options.work / "peer.gguf"
    found = checked(_lab(options), peers(options.sdist), path, options.threads)
    path.unlink()
    print(", ".join(f"{name} {value:.4g}" for name, value in found.items()))
    _keep(options.json, "peer", options.model, found)


def _lab(options: argparse.Namespace) -> TailoringLab:
    work = options.work / Path(options.model).stem
    work.mkdir(exist_ok=True)
    return TailoringLab(
        made(options.model, work, options.layers or N_LAYER, options.vocabulary),
        work,
        n_calibration=options.calibration,
        n_held_out=options.held_out,
        n_threads=options.threads,
    )


def _keep(path: Path, scenario: str, name: str, row: dict[str, Any]) -> None:
    """Write one row into the results, in place of an earlier one of that name."""
    results = _results(path)
    results.setdefault(scenario, {})[name] = row
    write_result(path, results)


def _results(path: Path) -> dict[str, Any]:
    return json.loads(path.read_text("utf-8")) if path.is_file() else {}


if __name__ == "__main__":
    main()
