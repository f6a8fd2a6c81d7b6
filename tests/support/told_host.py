"""A server on a unix socket that speaks a host's protocol as far as /health, and says there what a test wants, as a host of any version may."""

import json
import socketserver
import subprocess
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler

from mixcli.host.protocol.paths import HEALTH
from mixcli.system import paths

# all that the first version said
OLD: Mapping[str, object] = {
    "status": "ready",
    "progress": 1.0,
    "notes": [],
    "model": "old:Q4_K_M",
    "path": "/models/old.gguf",
    "size": 1234,
    "n_ctx": 512,
    "n_running": 3,
    "n_waiting": 4,
    "n_requests_done": 7,
    "n_prompt_tokens_done": 70,
    "busy": 0,
    "expires_in": 30.0,
}


class _Server(socketserver.ThreadingUnixStreamServer):
    daemon_threads = True

    def __init__(self, path: str, said: Mapping[str, object]) -> None:
        self.raw = json.dumps(said).encode()
        super().__init__(path, _Handler)


class _Handler(BaseHTTPRequestHandler):
    server: _Server

    def log_message(self, *_: object) -> None:
        """Write no log."""

    def address_string(self) -> str:
        return "client"

    def do_GET(self) -> None:
        assert self.path == HEALTH
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(self.server.raw)))
        self.end_headers()
        self.wfile.write(self.server.raw)


@contextmanager
def told_host(said: Mapping[str, object], name: str = "0123456789abcdef") -> Iterator[None]:
    """Be found as a host in the folder of sockets that this home has; its process is one that sleeps, which a `mixcli stop` may end."""
    with (
        subprocess.Popen(["sleep", "600"]) as process,
        _Server(str(paths.runtime_dir() / f"{name}.sock"), {"pid": process.pid, **said}) as server,
    ):
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
        thread.start()
        try:
            yield
        finally:
            server.shutdown()
            thread.join()
            process.kill()
