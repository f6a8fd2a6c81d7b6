"""A host that plays a script: the same socket, the same routes, the events that a test wants a front end to meet."""

import contextlib
import json
import os
import socketserver
import threading
from collections.abc import Callable, Iterable, Iterator
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from typing import Any, Self

from gguf import GGUFWriter

from mixcli.planning.launch import host_name
from mixcli.planning.load_options import LoadOptions
from mixcli.store.store import StoredModel
from profiles.request import PlanRequest

N_CTX = 1000
DIE = "\0die"  # an event: hang up in the middle of the stream and listen no more
Event = str | dict[str, Any] | threading.Event
Script = Callable[[dict[str, Any]], Iterable[Event]]


class _Server(socketserver.ThreadingMixIn, socketserver.UnixStreamServer):
    daemon_threads = True
    host: "ScriptedHost"

    def handle_error(self, *_: object) -> None:
        """A front end that hangs up is no error."""


class _Handler(BaseHTTPRequestHandler):
    server: _Server

    def address_string(self) -> str:
        return "unix"

    def log_message(self, *_: object) -> None:
        pass

    def do_GET(self) -> None:
        host = self.server.host
        if self.path == "/health":
            self._json({"status": "ready", "n_ctx": host.n_ctx, "pid": os.getpid()})
        elif self.path.startswith("/mixcli/attach"):
            self._begin()
            while not host.ready.wait(0.05) and not host.dead.is_set():
                self._event({"status": "loading", "progress": 0.5, "notes": [], "pid": os.getpid()})
            self._event({"status": "ready", "progress": 1.0, "notes": host.notes, "pid": os.getpid()})
            host.dead.wait()

    def do_POST(self) -> None:
        host = self.server.host
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        if self.path == "/tokenize":
            text = body.get("prompt") or " ".join(one["content"] for one in body["messages"])
            self._json({"count": len(text.split()), "tokens": [], "max_model_len": host.n_ctx})
            return
        if self.path == "/mixcli/experts":
            host.asked.set()
            host.unblocked.wait()
            self._json({"n_expert": 4, "n_expert_used": 2, "layers": [[6, 2, 0, 0], [4, 0, 4, 0]]})
            return
        host.requests.append(body)
        self._begin()
        with contextlib.suppress(BrokenPipeError):
            n = 0
            for event in host.script(body):
                if isinstance(event, threading.Event):
                    while not event.wait(0.05) and not host.dead.is_set():
                        self.wfile.write(b": still here\n\n")  # notices that the front end has left
                        self.wfile.flush()
                elif event == DIE:
                    host.die()
                    return
                elif isinstance(event, dict):
                    self._event(event)
                else:
                    n += 1
                    self._event({"choices": [{"index": 0, "delta": {"content": event}}]})
            self._event(
                {"choices": [{"index": 0, "delta": {}, "finish_reason": "stop", "token_ids": list(range(n))}]}
            )
            self._event({"choices": [], **host.accounts(n)})
            self.wfile.write(b"data: [DONE]\n\n")
            return
        host.hung_up.set()

    def _begin(self) -> None:
        self.send_response(200)
        self.send_header("Content-Type", "text/event-stream")
        self.send_header("Connection", "close")
        self.end_headers()

    def _event(self, event: dict[str, Any]) -> None:
        self.wfile.write(f"data: {json.dumps(event)}\n\n".encode())
        self.wfile.flush()

    def _json(self, value: dict[str, Any]) -> None:
        raw = json.dumps(value).encode()
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(raw)))
        self.end_headers()
        self.wfile.write(raw)


class ScriptedHost:
    """Listens where `mixcli chat -m PATH` looks for its host, and answers with `script`."""

    def __init__(self, path: Path, script: Script) -> None:
        self.path = path
        self.script = script
        self.n_ctx = N_CTX
        self.n_used = 100
        self.notes: list[str] = []
        self.requests: list[dict[str, Any]] = []
        self.ready = threading.Event()
        self.ready.set()
        self.asked = threading.Event()  # a slash command has asked
        self.unblocked = threading.Event()  # what slash commands ask waits for it
        self.unblocked.set()
        self.dead = threading.Event()
        self.hung_up = threading.Event()
        _write_header(path)
        name = host_name(StoredModel(path), LoadOptions(PlanRequest()))
        name.log.write_text("the scripted host has left\n")
        self._server = _Server(os.fspath(name.socket), _Handler)
        self._server.host = self
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.02,), daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.die()
        self._server.shutdown()
        self._thread.join()

    def die(self) -> None:
        """End as a killed process does: nobody listens, every connection is cut."""
        if not self.dead.is_set():
            self.dead.set()
            self.unblocked.set()
            self._server.socket.close()

    def accounts(self, n: int) -> dict[str, Any]:
        """Give usage and timings as a host does."""
        return {
            "usage": {
                "prompt_tokens": self.n_used - n,
                "completion_tokens": n,
                "total_tokens": self.n_used,
                "prompt_tokens_details": {"cached_tokens": 40},
            },
            "timings": {"prompt_per_second": 500.0, "predicted_per_second": 25.0},
        }


def _write_header(path: Path) -> None:
    """Write a GGUF without a tensor, whose chat template knows no system message."""
    writer = GGUFWriter(path, "llama")
    writer.add_chat_template("{% for m in messages %}[INST] {{ m.content }} [/INST]{% endfor %}")
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.close()


def saying(*answers: Iterable[Event]) -> Script:
    """Give one answer after the other, the last one for ever."""
    left: Iterator[Iterable[Event]] = iter(answers)
    last: list[Iterable[Event]] = [()]

    def script(_body: dict[str, Any]) -> Iterable[Event]:
        last[0] = next(left, last[0])
        return last[0]

    return script
