"""The ports that `mixcli serve` has open on this machine, and the state of their models."""

import json
import os
import socket
from dataclasses import dataclass
from functools import partial

from mixcli.client.events import body_of
from mixcli.client.poller import PollReply, Watch
from mixcli.client.unix_http import UnixResponse, send
from mixcli.host.protocol.messages import object_of
from mixcli.host.protocol.port_record import LOOK, LOOK_HEADER, PortRecord, port_records
from mixcli.host.protocol.port_state import PortState
from mixcli.system import paths


@dataclass(frozen=True)
class ServedPort:
    """A port: the URL of its API, its process, and its state; that of one that does not reply has no models."""

    url: str
    pid: int
    state: PortState

    def to_json(self) -> dict[str, object]:
        """Return the JSON object."""
        return {"url": self.url, "pid": self.pid, **self.state.to_json()}


class PortWatch(Watch[PortState]):
    """Requests the state of all ports of this user at once, each in a thread of its own; one that does not reply for `patience` seconds is UNRESPONSIVE."""

    def __init__(self, patience: float) -> None:
        super().__init__(patience)
        self._known: dict[str, PortRecord] = {}

    def send(self) -> None:
        """Send a request to every port that has none pending."""
        folder = paths.runtime_dir()
        self._known = {os.fspath(record.file(folder)): record for record in port_records(folder)}
        self._poller.send(
            {key: partial(_state, record, self._patience) for key, record in self._known.items()}
        )

    def states(self, seconds: float) -> list[ServedPort]:
        """Return the newest state of every port, having waited for new replies at most so many seconds."""
        replies = self._poller.replies(seconds)
        return [
            ServedPort(record.url, record.pid, self._newest(replies[key]))
            for key, record in self._known.items()
        ]

    def _newest(self, reply: PollReply[PortState | None]) -> PortState:
        if reply.value is None or self._is_late(reply):
            return PortState(self._status(reply))
        return reply.value


def _state(record: PortRecord, seconds: float) -> PortState | None:
    """Return the state that a port reports; None where it does not in time."""
    try:
        with socket.create_connection((record.address, record.port), seconds) as connection:
            send(connection, "GET", LOOK, {LOOK_HEADER: record.key}, b"")
            with UnixResponse(connection) as response:
                if response.status != 200:
                    return None
                return PortState.of(object_of(json.loads(body_of(response))))
    except (OSError, ValueError):
        return None


__all__ = ["PortWatch", "ServedPort"]
