"""The ports that `mixcli serve` has open on this machine, and what each says of its models."""

import json
import os
import socket
from dataclasses import dataclass
from functools import partial

from mixcli.client.events import body_of
from mixcli.client.host_watch import ASKED, UNRESPONSIVE
from mixcli.client.inquiries import Heard, Inquiries
from mixcli.client.unix_http import UnixResponse, send
from mixcli.host.protocol.messages import object_of
from mixcli.host.protocol.port_record import LOOK, LOOK_HEADER, PortRecord, port_records
from mixcli.host.protocol.port_state import PortState
from mixcli.system import paths


@dataclass(frozen=True)
class ServedPort:
    """A port: the URL of its API, its process, and its state; that of one that does not answer has no models."""

    url: str
    pid: int
    state: PortState

    def to_json(self) -> dict[str, object]:
        """Return the JSON object."""
        return {"url": self.url, "pid": self.pid, **self.state.to_json()}


class PortWatch:
    """Asks all ports of this user at once, each in a thread of its own; one that does not answer for `patience` seconds is UNRESPONSIVE."""

    def __init__(self, patience: float) -> None:
        self._patience = patience
        self._inquiries: Inquiries[PortState | None] = Inquiries()
        self._known: dict[str, PortRecord] = {}

    def ask(self) -> None:
        """Ask every port that has no question open."""
        folder = paths.runtime_dir()
        self._known = {os.fspath(record.file(folder)): record for record in port_records(folder)}
        self._inquiries.ask(
            {key: partial(_state, record, self._patience) for key, record in self._known.items()}
        )

    def hear(self, seconds: float) -> list[ServedPort]:
        """Return the newest state of every port, having waited for new answers at most so long."""
        heard = self._inquiries.hear(seconds)
        return [
            ServedPort(record.url, record.pid, self._newest(heard[key]))
            for key, record in self._known.items()
        ]

    def _newest(self, heard: Heard[PortState | None]) -> PortState:
        if heard.overdue >= self._patience:
            return PortState(UNRESPONSIVE)
        if heard.answer is None:
            return PortState(ASKED if heard.overdue else UNRESPONSIVE)
        return heard.answer


def _state(record: PortRecord, seconds: float) -> PortState | None:
    """Return what a port says of itself; None where it does not say it in time."""
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
