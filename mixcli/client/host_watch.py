"""The hosts of this machine and what each says of itself; one that does not answer is known by the record beside its socket."""

import contextlib
import os
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from mixcli.client.inquiries import Heard, Inquiries
from mixcli.client.openai import HostClient
from mixcli.errors import MixcliError
from mixcli.host.protocol.host_record import HostRecord, process_at, records
from mixcli.system import paths
from mixcli.system.locks import exclusive

if TYPE_CHECKING:
    from mixcli.host.protocol.health import HostHealth

PATIENCE = 2.4  # seconds for a host to answer
MARGIN = 0.4  # seconds of it that are left to find out whose a silent socket is
UNRESPONSIVE, STOPPING = "unresponsive", "stopping"
ASKED = "asked"  # of a host that has not answered yet, and is not late

NOBODY = (FileNotFoundError, ConnectionError)


class HostWatch:
    """Asks all hosts at once, each in a thread of its own; sockets that nothing listens on are cleared away.

    One that does not answer for `patience` seconds has the status UNRESPONSIVE, one that has closed its socket STOPPING; of both only the
    process and the model are known.
    """

    def __init__(self, patience: float = PATIENCE) -> None:
        self._patience = patience
        self._inquiries: Inquiries[HostHealth | None] = Inquiries()
        self._known: dict[int, HostRecord] = {}

    def ask(self) -> None:
        """Ask every host that has no question open."""
        folder = paths.runtime_dir()
        self._known = {
            record.pid: record for record in records(folder)
        }  # first: a socket is older than its record
        sockets = sorted(folder.glob("*.sock"))
        seconds = self._patience - MARGIN
        self._inquiries.ask({os.fspath(path): partial(_state, path, seconds) for path in sockets})

    def hear(self, seconds: float) -> "list[HostHealth]":
        """Return the newest state of every host, having waited for new answers at most so long."""
        heard = self._inquiries.hear(seconds)
        known = self._known
        found = [state for one in heard.values() if (state := self._newest(one)) is not None]
        answered = {state.pid for state in found}
        for pid, record in known.items():
            if pid not in answered and record.is_alive:
                found.append(_unheard(pid, record, self._status(heard.get(record.socket))))
        return [_named(state, known.get(state.pid)) if state.model is None else state for state in found]

    def _newest(self, heard: "Heard[HostHealth | None]") -> "HostHealth | None":
        """Return the last answer of a host, or of one that is silent what does not change."""
        state = heard.answer
        if state is None or heard.overdue < self._patience:
            return state
        return replace(_unheard(state.pid, None, UNRESPONSIVE), model=state.model, path=state.path)

    def _status(self, heard: "Heard[HostHealth | None] | None") -> str:
        """Return the status of a process without a known answer."""
        if heard is None:
            return STOPPING
        return ASKED if 0 < heard.overdue < self._patience else UNRESPONSIVE


def _state(path: Path, seconds: float) -> "HostHealth | None":
    """Return what a host says of itself; None where nothing listens."""
    try:
        return HostClient(path).health(seconds)
    except NOBODY:
        with contextlib.suppress(MixcliError), exclusive(path.with_suffix(".lock"), seconds=0.0):
            clear_if_dead(path)  # only if no other process is starting a host there
        return None
    except (OSError, ValueError):
        pid = process_at(path)
        return _unheard(pid, None, UNRESPONSIVE) if pid else None


def clear_if_dead(path: Path) -> None:
    """Remove a socket that nothing listens on; called under its lock."""
    try:
        HostClient(path).health()
    except NOBODY:
        path.unlink(missing_ok=True)
    except (OSError, ValueError):
        pass  # something listens


def _unheard(pid: int, record: HostRecord | None, status: str) -> "HostHealth":
    """Describe a host that does not say it itself."""
    from mixcli.host.protocol.health import HostHealth

    return _named(HostHealth(status, pid), record)


def _named(state: "HostHealth", record: HostRecord | None) -> "HostHealth":
    return replace(state, model=record.label, path=record.path) if record else state


__all__ = ["ASKED", "NOBODY", "PATIENCE", "STOPPING", "UNRESPONSIVE", "HostWatch", "clear_if_dead"]
