"""A processor that others want too: one stream alone, beside a program that keeps one core busy, and beside one for every core."""

import os
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path

from bench.engine import texts
from bench.engine.client import Body, stream
from bench.engine.scenario import Scenario
from bench.engine.servers import llama_server, mixcli_host
from bench.engine.subject import Setting, placement
from bench.estimate import Numbers, Promise
from bench.turns import Side

N_TOKENS, N_ANSWERS = 12, 1  # seconds a token for a peer
N_CTX = 1024


def sides(setting: Setting) -> Sequence[Side]:
    def ours() -> Numbers:
        with mixcli_host(setting, placement(N_CTX, 1), setting.folder / "home") as socket:
            return _rates(socket, {"logit_bias": setting.subject.ends, "park": False})

    def theirs() -> Numbers:
        with llama_server(setting, 1, N_CTX) as socket:
            return _rates(socket, {"ignore_eos": True})

    return (Side("mixcli", ours), Side("llama-server", theirs))


def _rates(socket: Path, extra: Body) -> Numbers:
    """Return tokens a second of the whole answers, question to end."""
    rates = {}
    for name, n_busy in (("alone", 0), ("beside one", 1), ("beside all", os.cpu_count() or 1)):
        with neighbors(n_busy):
            ask = partial(_seconds, socket, extra)
            ask(2)  # the neighbors are there, and a host that makes room for them has done so
            rates[name] = N_ANSWERS * N_TOKENS / sum(ask(N_TOKENS) for _ in range(N_ANSWERS))
    return rates


def _seconds(socket: Path, extra: Body, n_tokens: int) -> float:
    turns = [{"role": "user", "content": texts.opening(n_tokens)}]
    return stream(socket, {"messages": turns, "max_tokens": n_tokens, "temperature": 0, **extra}).seconds


@contextmanager
def neighbors(n: int) -> Iterator[None]:
    """Keep `n` cores busy while a block runs, from sessions of their own, as programs in other windows do."""
    command = [sys.executable, "-c", "while True: pass"]
    busy = [subprocess.Popen(command, start_new_session=True) for _ in range(n)]
    try:
        yield
    finally:
        for one in busy:
            one.kill()
            one.wait()


SCENARIO = Scenario(
    "crowded",
    "Beside busy programs",
    sides,
    (
        Promise(
            "tokens a second beside a busy program for every core, in terms of llama-server",
            ("mixcli", "beside all"),
            ("llama-server", "beside all"),
            "at least",
            2.0,
        ),
        Promise(
            "tokens a second beside one busy program, in terms of llama-server",
            ("mixcli", "beside one"),
            ("llama-server", "beside one"),
            "at least",
            1.0,
        ),
        Promise(
            "tokens a second alone, in terms of llama-server",
            ("mixcli", "alone"),
            ("llama-server", "alone"),
            "at least",
            0.97,
        ),
    ),
)
