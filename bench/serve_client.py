"""The clients of bench.serve: chat completions over connections of their own, each piece with the moment at which it came."""

import http.client
import json
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass
from time import perf_counter
from typing import Any

from bench.engine.client import CHAT

Connect = Callable[[], http.client.HTTPConnection]
Body = Mapping[str, Any]


@dataclass(frozen=True)
class Answer:
    """When a request was sent, and each piece of its answer came; `usage` as the server counts, empty for an answer that did not come to its end."""

    sent: float
    pieces: tuple[float, ...]
    ended: float
    usage: Mapping[str, int]

    @property
    def first(self) -> float:
        """Seconds to the first piece."""
        return self.pieces[0] - self.sent


def ask(
    connection: http.client.HTTPConnection, body: Body, enough: Callable[[int], bool] | None = None
) -> Answer:
    """Stream one answer, or leave it once there are `enough` pieces; little is looked at in each event, as both share the machine."""
    sent, pieces, usage = perf_counter(), list[float](), {}
    data = json.dumps({**body, "stream": True, "stream_options": {"include_usage": True}})
    done = False
    connection.request("POST", CHAT, data.encode(), {"Content-Type": "application/json"})
    with connection.getresponse() as response:
        if response.status != 200:
            raise SystemExit(f"{CHAT} answered {response.status}: {response.read()[:2000]!r}")
        for line in response:
            if b'"content":"' in line or b'"content": "' in line:
                pieces.append(perf_counter())
                if enough is not None and enough(len(pieces)):
                    break
            if b'"usage"' in line and (found := json.loads(line[6:]).get("usage")):
                usage = {name: found[name] for name in ("prompt_tokens", "completion_tokens")}
            done = done or line.startswith(b"data: [DONE]")
    return Answer(sent, tuple(pieces), perf_counter(), usage if done and pieces else {})


def ask_all(connect: Connect, bodies: Sequence[Body], n_clients: int) -> list[Answer]:
    """Ask everything, `n_clients` at a time, each over a connection of its own, as llama-server ends them; give the answers in order."""

    def one(body: Body) -> Answer:
        sent = perf_counter()
        try:
            return once(connect, body)
        except (OSError, http.client.HTTPException) as error:
            print(f"    lost after {perf_counter() - sent:.1f} s: {error!r}", flush=True)
            return Answer(sent, (), perf_counter(), {})

    with ThreadPoolExecutor(n_clients) as pool:
        return list(pool.map(one, bodies))


def once(connect: Connect, body: Body, enough: Callable[[int], bool] | None = None) -> Answer:
    """Ask over a connection of its own."""
    with closing(connect()) as connection:
        return ask(connection, body, enough)


def chat_body(system: str, user: str, n_tokens: int, extra: Body) -> Body:
    """Return a request of a system text and a message."""
    turns = [{"role": "system", "content": system}, {"role": "user", "content": user}]
    return {"messages": turns, "max_tokens": n_tokens, "temperature": 0.8, "seed": n_tokens, **extra}
