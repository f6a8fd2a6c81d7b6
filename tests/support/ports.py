"""The server of a port in the test's own process, in front of a real host or of none yet."""

import contextlib
import http.client
import json
import socket
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mixcli.serve.addresses import bound
from mixcli.serve.gate import Gate, names_of
from mixcli.serve.limits import Limits
from mixcli.serve.one_model import OneModel
from mixcli.serve.server import PortServer

LOOPBACK = Gate(names_of("127.0.0.1", ()))


@dataclass(frozen=True)
class Answer:
    """A response, read to its end."""

    status: int
    headers: dict[str, str]
    raw: bytes

    @property
    def json(self) -> Any:
        return json.loads(self.raw)


class Asked:
    """A port on this machine, and how to ask it."""

    number: int

    def ask(self, method: str, path: str, body: Any = None, **headers: str) -> Answer:
        with contextlib.closing(
            http.client.HTTPConnection("127.0.0.1", self.number, timeout=60)
        ) as connection:
            said = {name.replace("_", "-"): value for name, value in headers.items()}
            raw = body if body is None or isinstance(body, bytes) else json.dumps(body).encode()
            if raw is not None:
                said = {"Content-Type": "application/json", **said}
            connection.request(method, path, raw, said)
            response = connection.getresponse()
            found = {name.lower(): value for name, value in response.getheaders()}
            return Answer(response.status, found, response.read())

    def connect(self) -> socket.socket:
        return socket.create_connection(("127.0.0.1", self.number), 30)


@dataclass
class Port(Asked):
    """The port of one model."""

    model: OneModel
    number: int


def never() -> Path:
    raise AssertionError("the host did not end")


@contextlib.contextmanager
def served(
    host_socket: Path | None,
    gate: Gate = LOOPBACK,
    limits: Limits | None = None,
    revive: Callable[[], Path] = never,
    number: int = 0,
) -> Iterator[Port]:
    """Serve a host, on any free port if `number` is 0; without a host (None) it is loading until `model.ready` is called."""
    with bound("127.0.0.1", number) as listener:
        model = OneModel(revive)
        with PortServer(listener, gate, limits or Limits(), model).running():
            if host_socket is not None:
                model.ready(host_socket)
            yield Port(model, listener.getsockname()[1])
