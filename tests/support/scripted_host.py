"""A host on a unix socket whose answers are prepared: tool calls, reasoning and hostile texts, which no small model writes reliably."""

import json
import socketserver
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from typing import Any

from mixcli.host.protocol.paths import CHAT, HEALTH, MODELS, READY

BEAT = 0.02  # seconds between two signs of life of a stream that waits
N_CTX = 1000

Event = dict[str, Any]
HOLD: Event = {}  # where a stream waits until the test lets it continue
Script = Callable[[dict[str, Any]], list[Event]]


def said(**delta: Any) -> Event:
    """An event with a piece of an answer."""
    return {"choices": [{"index": 0, "delta": delta, "finish_reason": None}]}


def ended(reason: str = "stop") -> list[Event]:
    """The last events of an answer: 200 tokens of prompt, 50 of answer."""
    usage = {"prompt_tokens": 200, "completion_tokens": 50, "prompt_tokens_details": {"cached_tokens": 0}}
    timings = {"prompt_n": 200, "prompt_per_second": 400.0, "predicted_per_second": 25.0}
    last = {"choices": [{"index": 0, "delta": {}, "finish_reason": reason}]}
    return [last, {"choices": [], "usage": usage, "timings": timings}]


def progress(processed: int) -> Event:
    """How far a prompt of 200 tokens has been read, at 100 tok/s."""
    shown = {"total": 200, "cache": 0, "processed": processed, "time_ms": processed * 10}
    return {"choices": [], "prompt_progress": shown}


def echo(body: dict[str, Any]) -> list[Event]:
    """Answer with the model's name and the last message."""
    model = body.get("model", "any model")
    return [said(content=f"{model} read: "), said(content=body["messages"][-1]["content"]), *ended()]


@dataclass
class ScriptedHost:
    """Its socket, what it was asked, and what the test lets happen. `scripts` are answers by the last message; others are echoed."""

    socket: Path
    scripts: dict[str, Script] = field(default_factory=dict)
    requests: list[dict[str, Any]] = field(default_factory=list)
    go: threading.Event = field(default_factory=threading.Event)
    left: threading.Event = field(default_factory=threading.Event)  # a client that disconnected in a stream

    def begin(self, **scripts: Script) -> None:
        """Forget what was, and answer by these scripts."""
        self.scripts, self.requests = scripts, []
        self.go.clear()
        self.left.clear()


class _Handler(BaseHTTPRequestHandler):
    server: "_Server"

    def log_message(self, *_: object) -> None:
        """Write no log."""

    def address_string(self) -> str:
        return "client"

    def do_GET(self) -> None:
        answers: dict[str, Any] = {
            HEALTH: {"status": READY, "progress": 1.0, "n_waiting": 0},
            MODELS: {"object": "list", "data": [_card("first:Q4", []), _card("second:Q8", ["none", "high"])]},
        }
        raw = json.dumps(answers[self.path]).encode()
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(raw)))
        self.end_headers()
        self.wfile.write(raw)

    def do_POST(self) -> None:
        assert self.path == CHAT
        host = self.server.host
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        host.requests.append(body)
        script = host.scripts.get(body["messages"][-1]["content"], echo)
        self.send_response(200)
        self.send_header("Content-Type", "text/event-stream")
        self.end_headers()
        try:
            for event in script(body):
                self._write(event)
            self.wfile.write(b"data: [DONE]\n\n")
        except OSError:
            host.left.set()

    def _write(self, event: Event) -> None:
        if event is not HOLD:
            self.wfile.write(b"data: " + json.dumps(event).encode() + b"\n\n")
            return
        while not self.server.host.go.wait(BEAT):
            self.wfile.write(b": alive\n\n")


def _card(name: str, efforts: list[str]) -> dict[str, Any]:
    return {
        "id": name,
        "max_model_len": N_CTX,
        "capabilities": {"completion_chat": True},
        "reasoning_efforts": efforts,
    }


class _Server(socketserver.ThreadingUnixStreamServer):
    daemon_threads = True

    def __init__(self, host: ScriptedHost) -> None:
        self.host = host
        super().__init__(str(host.socket), _Handler)


@contextmanager
def scripted_host(folder: Path) -> Iterator[ScriptedHost]:
    """Serve prepared answers on a socket in a folder."""
    host = ScriptedHost(folder / "scripted.sock")
    with _Server(host) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
        thread.start()
        try:
            yield host
        finally:
            host.go.set()
            server.shutdown()
            thread.join()
