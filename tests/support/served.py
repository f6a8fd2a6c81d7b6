"""`mixcli serve` as a process of its own, and how to wait for what it does."""

import http.client
import json
import re
import signal
import subprocess
import sys
from typing import Any


class Port:
    """A server on a port of this machine."""

    def __init__(self, port: int) -> None:
        self.port = port

    def ask(self, method: str, path: str, body: Any = None, **headers: str) -> tuple[int, Any]:
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=120)
        said = {
            "Content-Type": "application/json",
            **{name.replace("_", "-"): value for name, value in headers.items()},
        }
        connection.request(method, path, None if body is None else json.dumps(body), said)
        response = connection.getresponse()
        with response:
            raw = response.read()
        connection.close()
        assert not [name for name, _ in response.getheaders() if name.lower().startswith("access-control")]
        try:
            return response.status, json.loads(raw)
        except ValueError:
            return response.status, raw.decode()


class Served(Port):
    """A server that was started by the command."""

    def __init__(self, *args: str, n_ctx: int = 1024, model: str = "demo") -> None:
        command = [sys.executable, "-m", "mixcli", "serve", "-m", model, "--ctx", str(n_ctx), *args]
        self.process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
        assert self.process.stderr is not None
        self.said, found = "", None  # notes of the plan may come before the address
        while not found and (line := self.process.stderr.readline()):
            self.said += line
            found = re.search(r"http://127\.0\.0\.1:(\d+)/v1", self.said)
        assert found, self.said
        super().__init__(int(found[1]))

    def end(self) -> tuple[int, str]:
        self.process.send_signal(signal.SIGTERM)
        _, err = self.process.communicate(timeout=300)  # with Ray, the end of the replicas too
        return self.process.returncode, err
