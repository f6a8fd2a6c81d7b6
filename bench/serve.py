"""python -m bench.serve [--only load|shared|beside|alone|gate] [--pairs N] [--python PYTHON]

`mixcli serve` under many clients at once, on the demo: 200 requests of 32 clients, each with a beginning of its own and all behind a system prompt of 200
tokens, against llama-server with as many slots; what a prompt of 3,000 tokens does to the answers beside it; and what the port itself costs. The result is in
bench/results/serve.json, and docs/benchmarks.md is written again. Ends with 1 if a promise is not kept.
"""

import argparse
import contextlib
import http.client
import itertools
import json
import re
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from random import Random
from statistics import median, quantiles
from time import perf_counter
from typing import Any

from bench.engine import texts
from bench.engine.client import TIMEOUT, Connection
from bench.engine.servers import llama_server
from bench.engine.subject import Setting, demo
from bench.estimate import Finding, Numbers, Promise, Rounds, Sign, Verdict, findings
from bench.peers import Peers, peers
from bench.process import as_installed
from bench.report import RESULTS, machine, write_result
from bench.report import main as write_docs
from bench.serve_client import Answer, Body, Connect, ask_all, chat_body, once
from bench.serve_gate import PORT, STRAIGHT, both_ways
from bench.turns import N_LONG_PAIRS, N_PAIRS, Side, all_turns

FOLDER = Path(__file__).parent.parent / "build" / "bench"
N_REQUESTS, N_CLIENTS = 200, 32
N_TOKENS = (8, 40)  # of an answer, drawn
N_CTX = 8192  # tokens for all
N_CTX_SLOT = {32: 512, 4: 4096}  # of llama-server: tokens by number of slots
N_LONG = 3000  # tokens of the long prompt
FIRST, SECOND = 0.3, 2.0  # seconds from the long prompt to the first short one, and from each to the next
BANNER = re.compile(r"http://([\d.]+):(\d+)/v1")
START = 120.0  # seconds that a server may take

GATE = "gate"
ALONE, RATIO, DIFFERENCE = "alone", "ratio", "difference"
WHOLE = "whole"  # the share of the answers that came to their end

# what is promised: of which scenario, what, number of the first side, sign, limit, and how it is held against the second side's
LIMITS: tuple[tuple[str, str, str, Sign, float, str], ...] = (
    ("load", "answers that came whole, of all requests", WHOLE, "at least", 1.0, ALONE),
    ("load", "95th percentile of the wait for an answer, in terms of the median", "late", "at most", 2.0, ALONE),
    ("load", "tokens a second, in terms of llama-server", "total", "at least", 1.0, RATIO),
    ("shared", "answers that came whole, of all requests", WHOLE, "at least", 1.0, ALONE),
    ("shared", "tokens a second behind a shared system prompt, in terms of llama-server", "total", "at least", 1.5, RATIO),
    ("beside", "longest pause of a running answer, s", "pause", "at most", 1.5, ALONE),
    ("beside", "first token of a short request beside a long prompt and a running answer, s", "first", "at most", 2.0, ALONE),
    ("alone", "first token of a short request beside a long prompt, s", "first", "at most", 2.0, ALONE),
    (GATE, "what the port adds to a short request of one client, ms", "ms", "at most", 3.0, DIFFERENCE),
    (GATE, "tokens a second of 16 streams through the port, in terms of the host", "streams", "at least", 0.98, RATIO),
)  # fmt: skip


def home_of(setting: Setting) -> Path:
    """Return the home of the mixcli that serves."""
    return setting.folder / "home"


@contextmanager
def mixcli_serve(setting: Setting, python: str) -> Iterator[Connect]:
    """Run `mixcli serve` with its own plan on a free port, loaded; give what connects."""
    environment = as_installed(MIXCLI_HOME=str(home_of(setting)))
    model = ["-m", str(setting.subject.path.absolute()), "--ctx", str(N_CTX), "--for", "batch"]
    command = [python, "-P", "-m", "mixcli", "serve", *model, "--port", "0", "--no-color"]
    with subprocess.Popen(command, stderr=subprocess.PIPE, env=environment) as server:
        assert server.stderr
        killer = threading.Timer(START, server.kill)
        killer.start()
        said = []
        for line in server.stderr:
            said.append(line.decode("utf-8", "replace"))
            if at := BANNER.search(said[-1]):
                break
        else:
            raise SystemExit(f"mixcli serve did not start: {''.join(said)[-2000:]}")
        killer.cancel()
        drain = threading.Thread(target=server.stderr.read, daemon=True)
        drain.start()
        try:
            yield lambda: http.client.HTTPConnection(at[1], int(at[2]), timeout=TIMEOUT)
        finally:
            server.terminate()
            server.wait()
            subprocess.run(
                [python, "-P", "-m", "mixcli", "stop", "--all", "-q"], env=environment, check=False
            )


@contextmanager
def llama_serve(setting: Setting, n_slots: int, options: Sequence[str] = ()) -> Iterator[Connect]:
    """Run llama-server with `n_slots` slots; give what connects."""
    with llama_server(setting, n_slots, N_CTX_SLOT[n_slots], options) as socket:
        yield lambda: Connection(socket)


@dataclass(frozen=True)
class Server:
    """One side: how to run it, and what keeps its answers from ending before their time."""

    name: str
    run: Callable[[int], contextlib.AbstractContextManager[Connect]]  # given the number of clients
    extra: Body

    def side(self, work: Callable[[Connect, Body], Numbers], n_clients: int) -> Side:
        def run() -> Numbers:
            with self.run(n_clients) as connect:
                return work(connect, self.extra)

        return Side(self.name, run)


# 32 clients


def load(system: Callable[[int], str], connect: Connect, extra: Body) -> Numbers:
    """Run the clients until all is answered; a system text that they share is computed with the first request."""
    once(connect, chat_body("Go.", "Say hello.", 4, extra))
    started = perf_counter()
    bodies = [
        chat_body(
            system(n), f"{texts.messages(256)[n]} (order {1000 + n})", Random(n).randint(*N_TOKENS), extra
        )
        for n in range(N_REQUESTS)
    ]
    answers = ask_all(connect, bodies, N_CLIENTS)
    seconds = perf_counter() - started
    whole = [one for one in answers if one.usage]
    if len(whole) < 2:
        raise SystemExit(
            f"{N_REQUESTS - len(whole)} of {N_REQUESTS} requests got no whole response, so nothing was measured"
        )
    waits = [one.ended - one.sent for one in whole]
    firsts = [one.first for one in whole]
    return {
        "total": sum(sum(one.usage.values()) for one in whole) / seconds,
        "written": sum(one.usage["completion_tokens"] for one in whole) / seconds,
        WHOLE: len(whole) / N_REQUESTS,
        "wait": median(waits),
        "late": quantiles(waits, n=20)[-1] / median(waits),
        "to first": median(firsts),
        "late to first": quantiles(firsts, n=20)[-1],
    }


def _own(number: int) -> str:
    return f"{number}: be friendly."


def _shared(_number: int) -> str:
    return texts.INSTRUCTION


# beside a long prompt


def beside(connect: Connect, extra: Body, *, writes: bool) -> Numbers:
    """Send a long prompt, while a long answer is written (`writes`) or not, and short requests while it is read."""
    once(connect, chat_body("Go.", "Say hello.", 16, extra))
    once(connect, chat_body("Go.", long_text(0)[:2000], 1, extra))
    running, read_to_end = threading.Event(), threading.Event()

    def until_read(_: int) -> bool:
        running.set()
        return read_to_end.is_set()

    with ThreadPoolExecutor(32) as pool:
        if writes:
            writer = pool.submit(once, connect, chat_body("Go.", "Tell a story.", 900, extra), until_read)
            running.wait(TIMEOUT)
            time.sleep(1)
        reader = pool.submit(once, connect, chat_body("Go.", long_text(1), 2, extra))
        time.sleep(FIRST)
        short = list(_shorts(pool, connect, reader, extra))
        read_to_end.set()
        read = reader.result()
        numbers = {
            "first": max(one.result().first for one in short),
            "long": read.first,
            "prompt": read.usage["prompt_tokens"],
            "short requests": len(short),
        }
        if writes:
            came = [at for at in writer.result().pieces if at >= read.sent]
            numbers["pause"] = max(after - at for at, after in itertools.pairwise([read.sent, *came]))
            numbers["meanwhile"] = sum(at <= read.pieces[0] for at in came) / read.first
    return numbers


def long_text(number: int) -> str:
    """Return a text of about N_LONG tokens; no two begin alike."""
    return f"Letters {number}: " + " ".join(f"{one}" for one in texts.messages(256))[: N_LONG * 9 // 2]


def _shorts(
    pool: ThreadPoolExecutor, connect: Connect, reader: "Future[Answer]", extra: Body
) -> Iterator["Future[Answer]"]:
    """Ask something short now and then until the long prompt is read; the first of it comes in any case."""
    for n in itertools.count():
        yield pool.submit(once, connect, chat_body(_own(n), texts.opening(n), 4, extra))
        time.sleep(SECOND)
        if reader.done():
            return


SCENARIOS: Mapping[str, tuple[Callable[[Connect, Body], Numbers], int]] = {
    "load": (partial(load, _own), N_CLIENTS),
    "shared": (partial(load, _shared), N_CLIENTS),
    "beside": (partial(beside, writes=True), 4),
    "alone": (partial(beside, writes=False), 4),
}

PAIRS = {"load": N_LONG_PAIRS}  # two minutes each


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--only", action="append", choices=(*SCENARIOS, GATE), help="this scenario (can be repeated)"
    )
    parser.add_argument(
        "--pairs", type=int, choices=range(1, 100), metavar="N", help="instead of each scenario's own"
    )
    parser.add_argument("--python", default=sys.executable, help="the environment whose mixcli is measured")
    parser.add_argument("--without-peer", action="store_true", help="measure mixcli alone")
    parser.add_argument("--folder", type=Path, default=FOLDER)
    parser.add_argument(
        "--sdist", type=Path, help="unpacked source of llama-cpp-python, if it is there already"
    )
    parser.add_argument("--json", type=Path, default=RESULTS / "serve.json")
    options = parser.parse_args()
    folder = options.folder.absolute()
    setting = Setting(demo(folder), Peers(folder) if options.without_peer else peers(options.sdist), folder)
    servers = [
        Server(
            "mixcli", lambda _: mixcli_serve(setting, options.python), {"logit_bias": setting.subject.ends}
        ),
        Server("llama-server", lambda n: llama_serve(setting, n), {"ignore_eos": True}),
    ][: 1 if options.without_peer else 2]
    found: dict[str, Any] = {}
    if options.json.is_file():  # scenarios that are not run keep what was measured of them
        found = json.loads(options.json.read_text("utf-8"))["scenarios"]
    kept = True
    for name in options.only or (*SCENARIOS, GATE):
        print(name, flush=True)
        rounds: Rounds
        if name == GATE:
            rounds = both_ways(
                lambda: servers[0].run(0), home_of(setting), servers[0].extra, options.pairs or N_PAIRS
            )
        else:
            work, n_clients = SCENARIOS[name]
            sides = [server.side(work, n_clients) for server in servers]
            rounds = all_turns(sides, options.pairs or PAIRS.get(name, N_PAIRS))
        measured = promises(name, rounds)
        found[name] = {
            "machine": machine(),
            "rounds": rounds,
            "promises": [one.to_data() for one in measured],
        }
        print("\n".join(f"  {one.line}" for one in measured))
        kept = kept and all(one.verdict != Verdict.NOT_KEPT for one in measured)
        write_result(options.json, {"scenarios": found})
    if options.json == RESULTS / "serve.json":
        write_docs()
    return 0 if kept else 1


def promises(scenario: str, rounds: Rounds) -> list[Finding]:
    """Return what was measured of everything that was promised of a scenario."""
    ours, theirs = (PORT, STRAIGHT) if scenario == GATE else ("mixcli", "llama-server")
    given = [
        Promise(
            what,
            (ours, number),
            None if how == ALONE else (theirs, number),
            sign,
            limit,
            is_difference=how == DIFFERENCE,
            needs_quiet=number != WHOLE,  # a lost answer is lost beside other programs too
        )
        for name, what, number, sign, limit, how in LIMITS
        if name == scenario
    ]
    return findings(given, rounds)


if __name__ == "__main__":
    sys.exit(main())
