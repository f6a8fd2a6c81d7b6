"""python -m bench.engine [--only NAME] [--model demo|true-shape|both] [--rounds 3]

Builds llama.cpp's programs once (bench/peers.py), makes the two models once (the demo; four layers with the shapes of Mixtral 8x7B), and
lets both sides of every scenario take turns. After every round the result is in bench/results/engine.json, at the end
docs/benchmarks.md is written again. Ends with 1 if a promise is not kept.
"""

import argparse
import json
import sys
from pathlib import Path
from typing import Any

from bench.engine import batch, chat, classify, crowded, schema, single, soak, speculation
from bench.engine.scenario import Scenario, medians, take_turns
from bench.engine.subject import SUBJECTS, Setting
from bench.peers import peers
from bench.report import RESULTS, machine, write_result
from bench.report import main as write_docs

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
    parser.add_argument("--rounds", type=int, choices=range(1, 100), metavar="N", default=3)
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
            if model not in scenario.models:
                continue
            print(f"{scenario.title}, {model}", flush=True)
            for rounds in take_turns(scenario.sides(setting), options.rounds):
                results.setdefault(name, {})[model] = _result(scenario, model, rounds)
                write_result(options.json, {"scenarios": results})
            kept = _show(results[name][model]["promises"]) and kept
    if options.json == RESULTS / "engine.json":
        write_docs()
    return 0 if kept else 1


def _result(scenario: Scenario, model: str, rounds: dict[str, Any]) -> dict[str, Any]:
    promises = []
    for promise in scenario.promised(model):
        if (ratio := promise.ratio(rounds)) is not None:
            promises.append(
                {
                    "what": promise.what,
                    "ratio": round(ratio, 3),
                    "sign": promise.sign,
                    "limit": promise.limit,
                    "kept": promise.is_kept(ratio),
                }
            )
    exact = {
        side: [{name: round(value, 4) for name, value in numbers.items()} for numbers in all_]
        for side, all_ in rounds.items()
    }
    middle = {
        side: {name: round(value, 4) for name, value in medians(all_).items()}
        for side, all_ in rounds.items()
    }
    return {"machine": machine(), "medians": middle, "promises": promises, "rounds": exact}


def _show(promises: list[dict[str, Any]]) -> bool:
    for promise in promises:
        verdict = "kept" if promise["kept"] else "NOT KEPT"
        print(
            f"  {promise['what']}: {promise['ratio']:.2f}x, {promise['sign']} {promise['limit']:.2f}x: {verdict}"
        )
    return all(promise["kept"] for promise in promises)


if __name__ == "__main__":
    sys.exit(main())
