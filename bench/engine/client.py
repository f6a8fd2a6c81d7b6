"""The one HTTP client for both servers: OpenAI's chat completions over a unix socket, connections kept open."""

import http.client
import json
import socket
import threading
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, closing
from dataclasses import dataclass
from pathlib import Path
from time import perf_counter
from typing import Any

CHAT = "/v1/chat/completions"
TIMEOUT = 900.0

Body = Mapping[str, Any]


class Connection(http.client.HTTPConnection):
    """HTTP over a unix socket."""

    def __init__(self, path: Path) -> None:
        super().__init__("localhost", timeout=TIMEOUT)
        self._path = path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.sock.settimeout(TIMEOUT)
        self.sock.connect(str(self._path))

    def send_json(self, path: str, body: Body) -> http.client.HTTPResponse:
        """Post, and give the response when its head is there; a refusal ends the benchmark."""
        self.request("POST", path, json.dumps(body).encode(), {"Content-Type": "application/json"})
        response = self.getresponse()
        if response.status != 200:
            raise SystemExit(
                f"{path} answered {response.status}: {response.read()[:2000].decode('utf-8', 'replace')}"
            )
        return response


@dataclass(frozen=True)
class Streamed:
    """An answer as it came: seconds to its first text and to its end, the text, and what the last events said beside it."""

    seconds_first: float
    seconds: float
    text: str
    last: Mapping[str, Any]


def ask_all(path: Path, bodies: Sequence[Body], n_at_once: int) -> tuple[float, list[dict[str, Any]]]:
    """Ask everything, `n_at_once` in flight over connections of their own; give the seconds for all, and the answers in order."""
    own = threading.local()

    with ExitStack() as opened:

        def ask(body: Body) -> dict[str, Any]:
            if not hasattr(own, "connection"):
                own.connection = opened.enter_context(closing(Connection(path)))
            answer: dict[str, Any] = json.loads(own.connection.send_json(CHAT, body).read())
            return answer

        with ThreadPoolExecutor(n_at_once) as pool:
            started = perf_counter()
            answers = list(pool.map(ask, bodies))
            return perf_counter() - started, answers


def stream(path: Path, body: Body) -> Streamed:
    """Ask once and read the answer piece by piece."""
    started = perf_counter()
    first, text, last = 0.0, "", dict[str, Any]()
    wish = {**body, "stream": True, "stream_options": {"include_usage": True}}
    with closing(Connection(path)) as connection:
        for event in _events(connection.send_json(CHAT, wish)):
            choice = (event.get("choices") or [{}])[0]
            if piece := (choice.get("delta") or {}).get("content"):
                first = first or perf_counter() - started
                text += piece
            said = {**event, **choice}
            last |= {key: said[key] for key in ("usage", "timings", "token_ids") if said.get(key)}
    return Streamed(first, perf_counter() - started, text, last)


def _events(response: http.client.HTTPResponse) -> Iterator[dict[str, Any]]:
    with response:
        for line in response:
            if line.startswith(b"data: {"):
                event = json.loads(line[6:])
                if "error" in event:
                    raise SystemExit(f"the stream ended with {event['error']}")
                yield event
