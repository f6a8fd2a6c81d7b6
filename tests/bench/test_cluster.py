"""bench.cluster: a port that is dead, and responses that do not come to their end, end the run with a sentence and yield no figure."""

import socket
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from bench.cluster import work

CUT = b'data: {"choices": [{"delta": {"content": "a"}}]}\n\n'


class Handler(BaseHTTPRequestHandler):
    """Sends a piece, and ends."""

    protocol_version = "HTTP/1.1"

    def do_POST(self) -> None:
        self.rfile.read(int(self.headers["Content-Length"]))
        self.send_response(200)
        self.send_header("Content-Length", str(len(CUT)))
        self.end_headers()
        self.wfile.write(CUT)

    def log_message(self, *_: object) -> None:
        """Write nothing."""


def test_a_dead_port_ends_the_run() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
    with pytest.raises(SystemExit, match=f"port {port} of mixcli serve --ray does not respond"):
        work(port, 4, {})


def test_lost_responses_end_the_run() -> None:
    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        try:
            with pytest.raises(SystemExit, match="5 of 5 requests got no whole response"):
                work(server.server_port, 5, {})
        finally:
            server.shutdown()
