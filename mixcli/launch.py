"""From the name of a model to a loaded one: which file, what fits, which process."""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict

from mixcli.console import console
from mixcli.host.process import Host, connect
from mixcli.host.spec import HostName
from mixcli.hub import usage
from mixcli.hub.store import StoredModel, find
from profiles.placement import Placement
from profiles.planner import Request


def load(model: str | None, request: Request, keep_alive: float) -> Host:
    """Give the loaded model, held until `leave`; the load is shown on stderr. `keep_alive` is seconds after that.

    The file is looked at and the plan is made only when no host has the model yet.
    """
    stored = find(model)
    usage.note(stored.path)
    name = HostName(stored.path, stored.label, json.dumps(asdict(request), sort_keys=True))
    with console.progress(f"loading {stored.label}") as bar:
        host = connect(name, lambda: place(stored, request), keep_alive, bar.update)
    for note in host.notes:
        console.note(note)
    return host


@contextmanager
def loaded(model: str | None, request: Request, keep_alive: float) -> Iterator[Host]:
    """Hold a loaded model while the block runs."""
    host = load(model, request, keep_alive)
    try:
        yield host
    finally:
        host.leave()


def place(stored: StoredModel, request: Request) -> Placement:
    """Look at the file before anything loads it, and plan it for this machine."""
    from mixcli.engine.preflight import check_gguf
    from mixcli.hardware import this_machine
    from mixcli.hub.headers import shape_of
    from profiles.planner import plan

    return plan(shape_of(check_gguf(stored.path)), this_machine(), request).placement
