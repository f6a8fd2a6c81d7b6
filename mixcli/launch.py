"""From the name of a model to a loaded one: which file, and which process holds it.

This is on the way of every command that asks something, so it imports nothing that plans: placing.py does, when a host must start.
"""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass

from mixcli.console import console
from mixcli.host.process import Host, connect
from mixcli.host.spec import HostName, Order
from mixcli.hub import usage
from mixcli.hub.store import StoredModel, find
from profiles.request import Request


@dataclass(frozen=True)
class Wish:
    """How a model shall be loaded: what is asked of the plan, and which machine it is made for (see insight.machines.machine_of)."""

    request: Request
    profile: str | None = None
    vram: int | None = None
    ram: int | None = None
    workers: tuple[str, ...] = ()


def load(model: str | None, wish: Wish, keep_alive: float, apart: str = "") -> Host:
    """Give the loaded model, held until `leave`; the load is shown on stderr. `keep_alive` is seconds after that.

    The file is looked at and the plan is made only when no host has the model yet. Whoever names the same `apart` shares a host.
    """
    stored = find(model)
    usage.note(stored.path)
    name = HostName(stored.path, stored.label, json.dumps(asdict(wish), sort_keys=True) + apart)
    with console.progress(f"loading {stored.label}") as bar:
        host = connect(name, lambda: _place(stored, wish), keep_alive, bar.update)
    for note in host.notes:
        console.note(note)
    return host


def identity(model: str | None) -> str:
    """Say in one line which weights a name means here: their checksum where it is known, else file, size and time."""
    stored = find(model)
    if stored.manifest:
        return f"{stored.label} {stored.manifest.sha256}"
    status = stored.path.stat()
    return f"{stored.path} {status.st_size} {status.st_mtime_ns}"


@contextmanager
def loaded(model: str | None, wish: Wish, keep_alive: float) -> Iterator[Host]:
    """Hold a loaded model while the block runs."""
    host = load(model, wish, keep_alive)
    try:
        yield host
    finally:
        host.leave()


def _place(stored: StoredModel, wish: Wish) -> Order:
    from mixcli.placing import place

    return place(stored, wish)
