"""The hosts of this machine and the state of each; one that does not reply is known by the record beside its socket."""

import contextlib
import os
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from mixcli.client.openai import HostClient
from mixcli.client.poller import PENDING, UNRESPONSIVE, PollReply, Watch
from mixcli.errors import MixcliError
from mixcli.host.protocol.host_record import HostRecord, process_at, records
from mixcli.system import paths
from mixcli.system.locks import exclusive

if TYPE_CHECKING:
    from mixcli.host.protocol.health import HostHealth

REPLY_TIMEOUT = 2.4  # seconds for a host to reply
MARGIN = 0.4  # seconds of it that are left to find out whose a silent socket is
STOPPING = "stopping"

NOT_LISTENING = (FileNotFoundError, ConnectionError)  # of a socket without a process


class HostWatch(Watch["HostHealth"]):
    """Requests the state of all hosts at once, each in a thread of its own; sockets that nothing listens on are removed.

    One that does not reply for `patience` seconds has the status UNRESPONSIVE, one that has closed its socket STOPPING; of both only the
    process and the model are known.
    """

    def __init__(self, patience: float = REPLY_TIMEOUT) -> None:
        super().__init__(patience)
        self._known: dict[int, HostRecord] = {}

    def send(self) -> None:
        """Send a request to every host that has none pending."""
        folder = paths.runtime_dir()
        self._known = {
            record.pid: record for record in records(folder)
        }  # first: a socket is older than its record
        sockets = sorted(path for path in folder.glob("*.sock") if path.is_socket())
        seconds = self._patience - MARGIN
        self._poller.send({os.fspath(path): partial(_state, path, seconds) for path in sockets})

    def states(self, seconds: float) -> "list[HostHealth]":
        """Return the newest state of every host, having waited for new replies at most so many seconds."""
        replies = self._poller.replies(seconds)
        known = self._known
        found = [state for one in replies.values() if (state := self._newest(one)) is not None]
        replied = {state.pid for state in found}
        for pid, record in known.items():
            if pid not in replied and record.is_alive:
                last = replies.get(record.socket)
                found.append(_silent(pid, record, STOPPING if last is None else self._status(last)))
        return [_named(state, known.get(state.pid)) if state.model is None else state for state in found]

    def _newest(self, reply: "PollReply[HostHealth | None]") -> "HostHealth | None":
        """Return the last reply of a host, or of one that is silent what does not change."""
        state = reply.value
        if state is None or not self._is_late(reply):
            return state
        return replace(_silent(state.pid, None, UNRESPONSIVE), model=state.model, path=state.path)


def _state(path: Path, seconds: float) -> "HostHealth | None":
    """Return the state that a host reports; None where nothing listens."""
    try:
        return HostClient(path).health(seconds)
    except NOT_LISTENING:
        with contextlib.suppress(MixcliError), exclusive(path.with_suffix(".lock"), seconds=0.0):
            clear_if_dead(path)  # only if no other process is starting a host there
        return None
    except (OSError, ValueError):
        pid = process_at(path)
        return _silent(pid, None, UNRESPONSIVE) if pid else None


def clear_if_dead(path: Path) -> None:
    """Remove a socket that nothing listens on; called under its lock."""
    try:
        if path.is_symlink():
            raise FileNotFoundError
        HostClient(path).health()
    except NOT_LISTENING:
        path.unlink(missing_ok=True)
    except (OSError, ValueError):
        pass  # something listens


def _silent(pid: int, record: HostRecord | None, status: str) -> "HostHealth":
    """Describe a host that does not reply."""
    from mixcli.host.protocol.health import HostHealth

    return _named(HostHealth(status, pid), record)


def _named(state: "HostHealth", record: HostRecord | None) -> "HostHealth":
    return replace(state, model=record.label, path=record.path) if record else state


__all__ = [
    "NOT_LISTENING",
    "PENDING",
    "REPLY_TIMEOUT",
    "STOPPING",
    "UNRESPONSIVE",
    "HostWatch",
    "clear_if_dead",
]
