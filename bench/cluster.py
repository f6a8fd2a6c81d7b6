"""python -m bench.cluster [--pairs N] [--requests N] [--json FILE]

`mixcli serve --ray` on a cluster of two nodes of this machine, each of which has a core of its own: the tokens per second of one replica and of
two, with the same requests. The gate, the clients and Ray share the two cores with the replicas, as they would not on machines of their own: what
they took of the processors is written beside the result. Needs the extra `ray` and the demo of bench.engine.
"""

import argparse
import contextlib
import http.client
import os
import re
import subprocess
import sys
import threading
from collections.abc import Iterator, Mapping
from pathlib import Path
from time import perf_counter

from bench.engine import texts
from bench.engine.client import TIMEOUT
from bench.engine.subject import demo
from bench.estimate import Numbers, Promise, Verdict, findings
from bench.report import write_result
from bench.serve_client import ask_all, once
from bench.turns import N_LONG_PAIRS, Side, all_turns
from tests.support.ray_cluster import RayCluster

FOLDER = Path(__file__).parent.parent / "build" / "bench"
N_CLIENTS, N_TOKENS, N_CTX = 16, 48, 2048
START = 180.0  # seconds for the replicas to load the model
READY = re.compile(r"http://127\.0\.0\.1:(\d+)/v1")
SIDES = {1: "one replica", 2: "two replicas"}
TICKS = os.sysconf("SC_CLK_TCK")


@contextlib.contextmanager
def served(address: str, model: Path, n_replicas: int) -> Iterator[int]:
    """Run `mixcli serve --ray` until all replicas are loaded; give its port."""
    options = ["--ctx", str(N_CTX), "--for", "batch", "--port", "0", "--ray", address]
    command = [sys.executable, "-m", "mixcli", "serve", "-m", str(model), *options]
    with subprocess.Popen(
        [*command, "--replicas", str(n_replicas)], stderr=subprocess.PIPE, text=True
    ) as server:
        assert server.stderr
        killer = threading.Timer(START, server.kill)
        killer.start()
        port, said = 0, ""
        all_run = f"{n_replicas} replica{'s' * (n_replicas > 1)} of {n_replicas} running"
        while not (port and all_run in said) and (line := server.stderr.readline()):
            said += line
            port = int(found[1]) if (found := READY.search(said)) else 0
        killer.cancel()
        try:
            if not (port and all_run in said):
                raise SystemExit(
                    f"mixcli serve --ray did not load {n_replicas} within {START:.0f} s, or ended: {said[-2000:]}"
                )
            threading.Thread(target=server.stderr.read, daemon=True).start()
            yield port
        finally:
            server.terminate()
            server.wait()


def work(port: int, n_requests: int, ends: Mapping[str, float]) -> Numbers:
    """Send conversations of their own, all at once, and return the tokens per second.

    A port that cannot be reached, and a response that does not come to its end, end the benchmark: a rate without them would be no rate.
    """

    def connect() -> http.client.HTTPConnection:
        return http.client.HTTPConnection("127.0.0.1", port, timeout=TIMEOUT)

    messages = texts.messages(256)
    bodies = [
        {
            "messages": [{"role": "user", "content": f"{messages[n % 256]} (order {1000 + n})"}],
            "max_tokens": N_TOKENS,
            "temperature": 0.8,
            "seed": n,
            "logit_bias": ends,
        }
        for n in range(n_requests)
    ]
    try:
        for body in bodies[:4]:
            once(connect, {**body, "max_tokens": 2})
    except (OSError, http.client.HTTPException) as error:
        raise SystemExit(f"port {port} of mixcli serve --ray does not respond: {error!r}") from None
    started, busy = perf_counter(), processor_seconds()
    answers = ask_all(connect, bodies, N_CLIENTS)
    seconds = perf_counter() - started
    if n_lost := sum(not one.usage for one in answers):
        raise SystemExit(
            f"{n_lost} of {n_requests} requests got no whole response from port {port}, so nothing was measured"
        )
    hosts = {name: taken - busy.get(name, 0.0) for name, taken in processor_seconds().items()}
    return {
        "total": sum(sum(one.usage.values()) for one in answers) / seconds,
        "written": sum(one.usage["completion_tokens"] for one in answers) / seconds,
        "seconds": seconds,
        **{f"cores of {name}": taken / seconds for name, taken in hosts.items()},
    }


def processor_seconds() -> dict[str, float]:
    """Return the processor time of all hosts, and of everything else on the machine, in seconds."""
    found = {"hosts": 0.0, "the rest": 0.0}
    for place in Path("/proc").iterdir():
        if place.name.isdigit():
            with contextlib.suppress(OSError):
                command = (place / "cmdline").read_bytes()
                fields = (place / "stat").read_text().rpartition(")")[2].split()
                kind = "hosts" if b"mixcli.host" in command else "the rest"
                found[kind] += (int(fields[11]) + int(fields[12])) / TICKS
    return found


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m bench.cluster")
    parser.add_argument("--pairs", type=int, choices=range(1, 100), metavar="N", default=N_LONG_PAIRS)
    parser.add_argument("--requests", type=int, default=48)
    parser.add_argument("--json", type=Path, default=FOLDER / "cluster.json")
    parser.add_argument("--folder", type=Path, default=FOLDER)
    options = parser.parse_args()
    folder = options.folder.absolute()
    subject = demo(folder)
    os.environ["MIXCLI_HOME"] = str(folder / "home")
    cores = sorted(os.sched_getaffinity(0))
    if len(cores) < 2:
        raise SystemExit("two cores are needed: one for each node")
    cluster = RayCluster(*cores[:2])

    def side(n_replicas: int) -> Side:
        def run() -> Numbers:
            with served(cluster.address, subject.path, n_replicas) as port:
                return work(port, options.requests, subject.ends)

        return Side(SIDES[n_replicas], run)

    try:
        rounds = all_turns([side(1), side(2)], options.pairs)
    finally:
        cluster.close()
    promise = Promise(
        "tokens a second of two replicas, in terms of one",
        (SIDES[2], "total"),
        (SIDES[1], "total"),
        "at least",
        1.7,
    )
    (found,) = findings([promise], rounds)
    print(f"  {found.line}")
    write_result(options.json, {"rounds": rounds, "promises": [found.to_data()]})
    return 0 if found.verdict != Verdict.NOT_KEPT else 1


if __name__ == "__main__":
    sys.exit(main())
