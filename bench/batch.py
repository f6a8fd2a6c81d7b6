"""python -m bench.batch [--only labels|overhead] [--model demo|true-shape|both] [--texts N] [--peer-texts N] [--pairs N]

`mixcli batch` as a whole process against driving llama-server with the best of 1, 4, 8 and 16 connections, on the same texts with the same
instruction and labels; and what `mixcli run` costs as a process beyond the bare HTTP request to the same warm host. The result is
in bench/results/batch.json, and docs/benchmarks.md is written again. Ends with 1 if a promise is not kept.
"""

import argparse
import json
import subprocess
import sys
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from itertools import product
from pathlib import Path
from time import perf_counter
from typing import Any, Self

from bench.batch_page import LABELS, OVERHEAD
from bench.engine import texts
from bench.engine.classify import GRAMMAR, N_CTX_SLOT, SLOTS
from bench.engine.client import ask_all
from bench.engine.servers import llama_server
from bench.engine.subject import SUBJECTS, Setting
from bench.estimate import Finding, Numbers, Promise, Verdict, side_medians
from bench.peers import peers
from bench.process import as_installed, keep_children
from bench.report import RESULTS, machine, write_result
from bench.report import main as write_docs
from bench.turns import N_LONG_PAIRS, N_PAIRS, Side, all_turns, best
from mixcli.client.openai import HostClient
from mixcli.host.protocol.messages import ChatBody
from mixcli.request.output_format import OutputFormat
from mixcli.request.prompt import ChatTurn

FOLDER = Path(__file__).parent.parent / "build" / "bench"
N_LABEL_PAIRS = {"demo": N_PAIRS, "true-shape": N_LONG_PAIRS}
LIMITS = {"demo": 1.8, "true-shape": 3.5}
LIMIT_OVERHEAD = 150.0  # milliseconds
N_TEXTS = {"demo": 256, "true-shape": 64}  # half a minute each
CTX = "4096"  # of both sides' models
N_CALLS = 20  # pairs


def messages(n: int) -> list[str]:
    """Return `n` different short messages."""
    stock = texts.messages(256)
    return [f"{stock[number % len(stock)]} (order {1000 + number})" for number in range(n)]


class Command(AbstractContextManager["Command"]):
    """`mixcli` with a home of its own and the model under measurement.

    As a context it begins with nothing loaded, unloads all at its end, and becomes the parent of the host that its first command leaves
    behind, so that the host does not count as another program.
    """

    def __init__(self, setting: Setting) -> None:
        self._model = str(setting.subject.path.absolute())
        self._home = setting.folder / "home"
        self._environment = as_installed(MIXCLI_HOME=str(self._home))
        self._kept = keep_children()

    def __enter__(self) -> Self:
        self.stop()
        self._kept.__enter__()
        return self

    def __exit__(self, *error: Any) -> None:
        try:
            self.stop()
        finally:
            self._kept.__exit__(*error)

    def run(self, *args: str) -> float:
        """Run a command to its end; gives seconds."""
        command = [sys.executable, "-m", "mixcli", args[0], "-q", "-m", self._model, "--ctx", CTX, *args[1:]]
        started = perf_counter()
        done = subprocess.run(
            command, env=self._environment, capture_output=True, stdin=subprocess.DEVNULL, check=False
        )
        seconds = perf_counter() - started
        if done.returncode:
            raise SystemExit(done.stderr.decode("utf-8", "replace"))
        return seconds

    def stop(self) -> None:
        """Unload what was loaded."""
        command = [sys.executable, "-m", "mixcli", "stop", "--all", "-q"]
        subprocess.run(command, env=self._environment, check=False, capture_output=True)

    def socket(self) -> Path:
        """Return the socket of the one host that is loaded."""
        (socket,) = (self._home / "cache" / "run").glob("*.sock")
        return socket


def label_sides(setting: Setting, n_texts: int, n_peer: int) -> Sequence[Side]:
    """Find llama-server's best setting with fewer texts, then let it and `mixcli batch` take turns."""

    def server(n_slots: int, repack: bool, n: int) -> Callable[[], Numbers]:
        def run() -> Numbers:
            with llama_server(setting, n_slots, N_CTX_SLOT, [] if repack else ["--no-repack"]) as socket:
                bodies = [_body(text) for text in messages(n + n_slots)]
                ask_all(socket, bodies[n:], n_slots)
                seconds, answers = ask_all(socket, bodies[:n], n_slots)
            wrong = [
                answer
                for answer in answers
                if answer["choices"][0]["message"]["content"].strip() not in texts.LABELS
            ]
            if wrong:
                raise SystemExit(f"this is no label: {json.dumps(wrong[0])[:500]}")
            return {"texts": n / seconds}

        return run

    def ours() -> Numbers:
        source, out = setting.folder / "batch.jsonl", setting.folder / "batch.out.jsonl"
        ask = ("--choice", ",".join(texts.LABELS), "--prompt", texts.INSTRUCTION + "{{ text }}")
        with Command(setting) as command:
            _write(source, messages(32))
            command.run("batch", str(source), *ask)  # loads the model
            _write(source, messages(n_texts))
            for old in (out, out.with_name(out.name + ".journal")):
                old.unlink(missing_ok=True)
            seconds = command.run("batch", str(source), "-o", str(out), *ask)
        lines = [json.loads(line) for line in out.read_text("utf-8").splitlines()]
        if len(lines) != n_texts or any(abs(sum(line["label_probs"].values()) - 1) > 1e-3 for line in lines):
            raise SystemExit("these are no labels with their probabilities")
        return {"texts": n_texts / seconds}

    names = {True: "repacked", False: "not repacked"}
    looks = {f"llama-server, {n} slots, {names[repack]}": (n, repack) for n, repack in product(SLOTS, names)}
    n_look = 48 if setting.subject.is_small else 16
    found = best([Side(name, server(*how, max(n_look, 2 * how[0]))) for name, how in looks.items()], "texts")
    return (Side("mixcli batch", ours), Side("llama-server", server(*looks[found.name], n_peer)))


def overhead(setting: Setting) -> dict[str, Any]:
    """Measure the whole process of a warm `mixcli run` and the bare request, in turns; milliseconds."""
    ask = ("run", "Is water wet?", "--choice", "yes,no")
    form = OutputFormat(labels=("yes", "no"))
    body = ChatBody((ChatTurn("user", "Is water wet?"),), {"temperature": 0}, form, park=False)
    with Command(setting) as command:
        command.run(*ask)
        client = HostClient(command.socket())
        sides = [
            Side("run", lambda: {"ms": 1000 * command.run(*ask)}),
            Side("request", lambda: _milliseconds(lambda: client.complete(body))),
            Side("python", lambda: _milliseconds(_bare_python)),
        ]
        rounds = all_turns(sides, N_CALLS, show=False)
    promise = Promise(
        OVERHEAD, ("run", "ms"), ("request", "ms"), "at most", LIMIT_OVERHEAD, is_difference=True
    )
    finding = promise.finding(rounds)
    assert finding is not None
    print(f"  {finding.line}", flush=True)
    figures = {side: numbers["ms"] for side, numbers in side_medians(rounds).items()}
    return {"machine": machine(), **figures, "promise": finding.to_data()}


def _milliseconds(work: Callable[[], object]) -> Numbers:
    started = perf_counter()
    work()
    return {"ms": 1000 * (perf_counter() - started)}


def _bare_python() -> None:
    subprocess.run([sys.executable, "-c", "pass"], check=True)


def _body(text: str) -> dict[str, Any]:
    content = texts.INSTRUCTION + text
    return {
        "messages": [{"role": "user", "content": content}],
        "grammar": GRAMMAR,
        "cache_prompt": True,
        "max_tokens": 8,
        "temperature": 0,
    }


def _write(path: Path, lines: Sequence[str]) -> None:
    path.write_text("".join(json.dumps({"text": line}) + "\n" for line in lines), "utf-8")


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--only", choices=("labels", "overhead"))
    parser.add_argument("--model", choices=[*SUBJECTS, "both"], default="both")
    parser.add_argument("--texts", type=int, help="for mixcli batch; 256 on the demo, 64 on the true shapes")
    parser.add_argument(
        "--peer-texts",
        type=int,
        help="for llama-server, whose rate does not depend on how many; as many as ours",
    )
    parser.add_argument(
        "--pairs",
        type=int,
        choices=range(1, 100),
        metavar="N",
        help="of labels (10 on the demo, 4 on the true shapes)",
    )
    parser.add_argument("--folder", type=Path, default=FOLDER)
    parser.add_argument(
        "--sdist", type=Path, help="unpacked source of llama-cpp-python, if it is there already"
    )
    options = parser.parse_args()
    path = RESULTS / "batch.json"
    result: dict[str, Any] = {"labels": {}}
    if path.is_file():
        result = json.loads(path.read_text("utf-8"))
    folder = options.folder.absolute()
    programs = peers(options.sdist) if options.only != "overhead" else folder  # no peer is asked for it
    kept = True
    for model in SUBJECTS if options.model == "both" else (options.model,):
        setting = Setting(SUBJECTS[model](folder), programs, folder)
        if options.only != "labels" and model == "demo":
            result["overhead"] = overhead(setting)
            kept = _is_kept(result["overhead"]) and kept
            write_result(path, result)
        if options.only != "overhead":
            n_texts = options.texts or N_TEXTS[model]
            n_peer = options.peer_texts or n_texts
            found = _labels(setting, n_texts, n_peer, options.pairs or N_LABEL_PAIRS[model])
            result["labels"][model] = found
            kept = _is_kept(found) and kept
            write_result(path, result)
    write_docs()
    return 0 if kept else 1


def _is_kept(found: dict[str, Any]) -> bool:
    return Finding.from_data(found["promise"]).verdict != Verdict.NOT_KEPT


def _labels(setting: Setting, n_texts: int, n_peer: int, n_pairs: int) -> dict[str, Any]:
    model = setting.subject.name
    promise = Promise(
        LABELS,
        ("mixcli batch", "texts"),
        ("llama-server", "texts"),
        "at least",
        LIMITS[model],
    )
    rounds = all_turns(label_sides(setting, n_texts, n_peer), n_pairs)
    finding = promise.finding(rounds)
    assert finding is not None
    print(f"  {finding.line}", flush=True)
    return {
        "machine": machine(),
        "n_texts": n_texts,
        "n_peer": n_peer,
        "rounds": rounds,
        "promise": finding.to_data(),
    }


if __name__ == "__main__":
    sys.exit(main())
