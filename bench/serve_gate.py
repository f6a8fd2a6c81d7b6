"""What the port of `mixcli serve` costs: the same requests through it and straight to the host's socket, in turns A B B A.

Both ways lead to one host, and a pair are neighbors in time. So what is left between them is the port: its checks, a second hop of HTTP, and the share of the
processor that it takes from the host.
"""

from collections.abc import Callable
from contextlib import AbstractContextManager
from functools import partial
from pathlib import Path
from time import perf_counter

from bench.engine import texts
from bench.engine.client import Connection
from bench.engine.servers import at_home
from bench.estimate import Numbers
from bench.serve_client import Body, Connect, ask_all, chat_body, once
from bench.turns import Side, all_turns
from mixcli.host.protocol.port_record import port_records
from mixcli.system import paths

PORT, STRAIGHT = "through the port", "straight to the host"
N_SHORT, SHORT = 3, 2  # requests of one client in a turn, and tokens of each answer
MORE_SHORT = 8  # times as many pairs of them: turns are so short that both meet the same machine
N_STREAMS = 16  # clients at a time
STREAM = 64  # tokens of each answer of theirs: beside so many the cost of a request, which has a row of its own, is small

Serve = Callable[[], AbstractContextManager[Connect]]


def both_ways(serve: Serve, home: Path, extra: Body, n_pairs: int) -> dict[str, list[Numbers]]:
    """Measure both ways while `serve` runs with its files in `home`; return the numbers of each pair, by side."""
    with serve() as port:
        ways = {PORT: port, STRAIGHT: to_host(home)}
        threads = port_threads(home)
        for connect in ways.values():  # warms up
            one_client(connect, extra)
            streams(connect, extra)
        found: dict[str, list[Numbers]] = {side: [] for side in ways}
        for work, n in ((one_client, MORE_SHORT * n_pairs), (streams, n_pairs)):
            runs = {name: partial(work, connect, extra) for name, connect in ways.items()}
            runs[PORT] = partial(
                with_processor, threads, runs[PORT], N_SHORT if work is one_client else N_STREAMS * STREAM
            )
            sides = [Side(name, run) for name, run in runs.items()]
            for side, numbers in all_turns(sides, n, show=work is streams).items():
                found[side] += numbers
        return found


def port_threads(home: Path) -> Path:
    """Return the folder of the threads of the process that has the port open."""
    with at_home(home):
        record = next(port_records(paths.runtime_dir()))
    return Path(f"/proc/{record.pid}/task")


def with_processor(threads: Path, run: Callable[[], Numbers], n: int) -> Numbers:
    """Run a turn, and return with its numbers the processor time of the port for each of `n` requests, in ms, or tokens, in us."""
    before = processor_seconds(threads)
    numbers = run()
    each = (processor_seconds(threads) - before) / n
    return {**numbers, **({"processor ms": 1e3 * each} if "ms" in numbers else {"processor us": 1e6 * each})}


def processor_seconds(threads: Path) -> float:
    """Return the processor time of all threads of a process that still run; Linux only."""
    return sum(int(one.read_text("ascii").split()[0]) for one in threads.glob("*/schedstat")) / 1e9


def to_host(home: Path) -> Connect:
    """Return what connects to the socket of the only host in a home."""
    with at_home(home):
        sockets = list(paths.runtime_dir().glob("*.sock"))
    if len(sockets) != 1:
        raise SystemExit(f"{len(sockets)} hosts run in {home}; end them with `mixcli stop --all`")
    return lambda: Connection(sockets[0])


def one_client(connect: Connect, extra: Body) -> Numbers:
    """Ask short questions one after the other; return the milliseconds of one."""
    bodies = [chat_body("Go.", texts.opening(n), SHORT, extra) for n in range(N_SHORT)]
    began = perf_counter()
    for body in bodies:
        once(connect, body)
    return {"ms": 1000 * (perf_counter() - began) / N_SHORT}


def streams(connect: Connect, extra: Body) -> Numbers:
    """Stream to many clients at a time, who ask the same, so that hardly anything but decode is measured; return the tok/s of all of them."""
    bodies = [
        chat_body("Go.", texts.opening(0), STREAM, {**extra, "seed": seed}) for seed in range(N_STREAMS)
    ]
    began = perf_counter()
    answers = ask_all(connect, bodies, N_STREAMS)
    seconds = perf_counter() - began
    n_tokens = sum(one.usage.get("completion_tokens", 0) for one in answers)
    if n_tokens != N_STREAMS * STREAM:
        raise SystemExit(f"{n_tokens} tokens came of {N_STREAMS * STREAM}")
    return {"streams": n_tokens / seconds}
