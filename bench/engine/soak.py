"""A thousand requests of all kinds with clients that leave: everything is accounted for, and memory stays flat."""

import json
import random
import re
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path
from time import monotonic, sleep
from typing import Any

from bench.engine import texts
from bench.engine.client import CHAT, Connection
from bench.engine.scenario import Scenario
from bench.engine.servers import mixcli_host
from bench.engine.subject import N_SEQ, Setting, placement
from bench.estimate import Numbers, Promise
from bench.turns import Side

N_REQUESTS, N_WARM, N_AT_ONCE = 1000, 250, 24
LEAVERS = 0.2  # share of the clients that disconnect after a few pieces
PATIENCE = 60.0  # seconds after which what was left behind must be over

# each kind may be any request's
KINDS: tuple[dict[str, Any], ...] = (
    {},
    {"temperature": 0},
    {"stop": ["."], "top_k": 0, "min_p": 0.02},
    {"speculate": True},
    {"structured_outputs": {"choice": list(texts.LABELS)}},
    {"structured_outputs": {"regex": "(yes|no), because [a-z ]{5,30}"}},
    {"response_format": {"type": "json_schema", "json_schema": {"name": "n", "schema": {"type": "integer"}}}},
)


def sides(setting: Setting) -> Sequence[Side]:
    def run() -> Numbers:
        with mixcli_host(setting, placement(4096, N_SEQ), setting.folder / "home") as socket:
            pid = _health(socket)["pid"]
            bodies = [_body(random.Random(number)) for number in range(N_WARM + N_REQUESTS)]
            with ThreadPoolExecutor(N_AT_ONCE) as pool:
                list(pool.map(lambda body: _ask(socket, *body), bodies[:N_WARM]))
                before = _settled(socket, pid)
                ended = list(pool.map(lambda body: _ask(socket, *body), bodies[N_WARM:]))
            after = _settled(socket, pid)
        left = sum(leaves for _, leaves in bodies[N_WARM:])
        return {
            "asked": N_REQUESTS,
            "accounted for": sum(ended),
            "left early": left,
            "resident before, MiB": before / 2**20,
            "resident after, MiB": after / 2**20,
        }

    return (Side("mixcli", run),)


def _body(choose: random.Random) -> tuple[dict[str, Any], bool]:
    """Return a request, and whether its client leaves early."""
    content = " ".join(choose.choices(texts.INSTRUCTION.split(), k=choose.randrange(1, 120)))
    body = {
        "messages": [{"role": "user", "content": content}],
        "max_tokens": choose.randrange(1, 24),
        "seed": choose.randrange(1 << 30),
        "park": choose.random() < 0.3,
        "stream": True,
        **choose.choice(KINDS),
    }
    return body, choose.random() < LEAVERS


def _ask(socket: Path, body: dict[str, Any], leaves: bool) -> bool:
    """Ask; tell whether the answer came to its end, or was left by this client as it meant to."""
    with closing(Connection(socket)) as connection, connection.send_json(CHAT, body) as response:
        for n, line in enumerate(response):
            if leaves and n > 4:
                return True
            if line.startswith(b"data: {"):
                event = json.loads(line[6:])
                if "error" in event:
                    raise SystemExit(f"a request ended with {event['error']}: {json.dumps(body)[:500]}")
                if (event.get("choices") or [{}])[0].get("finish_reason"):
                    return True
    return False


def _health(socket: Path) -> dict[str, Any]:
    with closing(Connection(socket)) as connection:
        connection.request("GET", "/health")
        state: dict[str, Any] = json.loads(connection.getresponse().read())
        return state


def _settled(socket: Path, pid: int) -> int:
    """Wait until nothing runs and nothing waits; give the host's resident bytes that no file backs."""
    deadline = monotonic() + PATIENCE
    while (state := _health(socket))["n_running"] or state["n_waiting"]:
        if monotonic() > deadline:
            raise SystemExit(f"{state['n_running']} requests run that nobody waits for")
        sleep(0.1)
    status = Path(f"/proc/{pid}/status").read_text("ascii", "replace")
    return sum(int(kib) * 1024 for kib in re.findall(r"^Rss(?:Anon|Shmem):\s+(\d+) kB", status, re.MULTILINE))


SCENARIO = Scenario(
    "soak",
    "A thousand requests of all kinds",
    sides,
    (
        Promise(
            "requests accounted for",
            ("mixcli", "accounted for"),
            ("mixcli", "asked"),
            "at least",
            1.0,
            needs_quiet=False,
        ),
        Promise(
            "resident memory after 1,000 requests, in terms of before",
            ("mixcli", "resident after, MiB"),
            ("mixcli", "resident before, MiB"),
            "at most",
            1.05,
            needs_quiet=False,
        ),
    ),
    n_pairs={"demo": 2},  # minutes each, and both numbers of a pair are of one host
)
