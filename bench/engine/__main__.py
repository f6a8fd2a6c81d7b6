"""python -m bench.engine [--only NAME] [--model demo|true-shape|both] [--pairs N]

Builds llama.cpp's programs once (bench/peers.py), makes the two models once (the demo; four layers with the shapes of Mixtral 8x7B), and
lets the sides of every scenario take turns (bench/turns.py). After every pass the result is in bench/results/engine.json, at the end
docs/benchmarks.md is written again. Ends with 1 if a promise is not kept; an open one is printed.
"""

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from bench.engine import batch, chat, classify, crowded, schema, single, soak, speculation
from bench.engine.subject import SUBJECTS, Setting
from bench.estimate import Finding, Rounds, Verdict, findings
from bench.peers import peers
from bench.report import RESULTS, machine, write_result
from bench.report import main as write_docs
from bench.turns import take_turns

FOLDER = Path(__file__).parent.parent.parent / "build" / "bench"
SCENARIOS = {
    scenario.name: scenario
    for scenario in (
        module.SCENARIO for module in (single, batch, classify, chat, crowded, speculation, schema, soak)
    )
}


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--only", action="append", choices=SCENARIOS, help="this scenario (can be repeated)")
    parser.add_argument("--model", choices=[*SUBJECTS, "both"], default="both")
    parser.add_argument(
        "--pairs", type=int, choices=range(1, 100), metavar="N", help="instead of each scenario's own"
    )
    parser.add_argument("--folder", type=Path, default=FOLDER, help="where the models are kept (4 GB)")
    parser.add_argument(
        "--sdist", type=Path, help="unpacked source of llama-cpp-python, if it is there already"
    )
    parser.add_argument("--json", type=Path, default=RESULTS / "engine.json")
    options = parser.parse_args()
    programs = peers(options.sdist)
    results: dict[str, dict[str, Any]] = {}
    if options.json.is_file():  # scenarios that are not run keep what was measured of them
        results = json.loads(options.json.read_text("utf-8"))["scenarios"]
    kept = True
    for model in SUBJECTS if options.model == "both" else (options.model,):
        setting = Setting(SUBJECTS[model](options.folder.absolute()), programs, options.folder.absolute())
        for name in options.only or SCENARIOS:
            scenario = SCENARIOS[name]
            if model not in scenario.n_pairs:
                continue
            print(f"{scenario.title}, {model}", flush=True)
            found: list[Finding] = []
            for rounds in take_turns(scenario.sides(setting), options.pairs or scenario.n_pairs[model]):
                found = findings(scenario.promised(model), rounds)
                results.setdefault(name, {})[model] = _result(found, rounds)
                write_result(options.json, {"scenarios": results})
            print("\n".join(f"  {one.line}" for one in found))
            kept = kept and all(one.verdict != Verdict.NOT_KEPT for one in found)
    if options.json == RESULTS / "engine.json":
        write_docs()
    return 0 if kept else 1


def _result(found: Sequence[Finding], rounds: Rounds) -> dict[str, Any]:
    exact = {
        side: [{name: round(value, 4) for name, value in numbers.items()} for numbers in all_]
        for side, all_ in rounds.items()
    }
    return {"machine": machine(), "promises": [one.to_data() for one in found], "rounds": exact}


if __name__ == "__main__":
    sys.exit(main())
