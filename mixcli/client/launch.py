"""Load a model by name: find its file, and attach to its host or start one.

This is on the way of every command that asks something, so it imports nothing that plans: plan_load.py does, when a host must start.
"""

import json
from collections.abc import Callable
from dataclasses import asdict

from mixcli.client.process import Host, connect
from mixcli.errors import NotInstalled
from mixcli.host.protocol.host_spec import HostName, LoadPlan
from mixcli.planning.load_options import LoadOptions
from mixcli.store import usage
from mixcli.store.store import StoredModel, find
from mixcli.system.console import console


def load(model: str | None, wish: LoadOptions, keep_alive: float, apart: str = "") -> Host:
    """Return the loaded model, held until `leave`; the load is shown on stderr. `keep_alive` is seconds after that.

    Loads with the same `apart` share a host.
    """
    stored = installed(model, wish)
    with console.progress(f"loading {stored.label}") as bar:
        host = acquire(stored, wish, keep_alive, bar.update, apart=apart)
    for note in host.notes:
        console.note(note)
    return host


def installed(model: str | None, wish: LoadOptions) -> StoredModel:
    """Return the installed model that a name means; NotInstalled has the file that `mixcli pull` would bring and its rate for this wish."""
    try:
        return find(model)
    except NotInstalled as missing:
        from mixcli.planning.offers import with_offer

        raise with_offer(missing, wish) from None


def acquire(
    stored: StoredModel,
    wish: LoadOptions,
    keep_alive: float,
    report: Callable[[float, float, str], None],
    placed: Callable[[LoadPlan], None] = lambda _order: None,
    *,
    less: bool = False,
    apart: str = "",
) -> Host:
    """Find the host of a model or start it, and wait until it is loaded; nothing is printed.

    The file is looked at and the plan is made only when no host has the model yet; `placed` receives the plan. `less` takes the next
    smaller plan, for when memory ran out with the first.
    """

    def order() -> LoadPlan:
        from mixcli.planning.plan_load import plan_load

        found = plan_load(stored, wish)
        found = found.smaller if less and found.smaller else found
        placed(found)
        return found

    usage.note(stored.path)
    return connect(host_name(stored, wish, apart), order, keep_alive, report)


def host_name(stored: StoredModel, wish: LoadOptions, apart: str = "") -> HostName:
    """Return the name under which the host of a model and a wish is found."""
    return HostName(stored.path, stored.label, json.dumps(asdict(wish), sort_keys=True) + apart)


def identity(model: str | None, wish: LoadOptions) -> str:
    """Return in one line which weights a name means here: their checksum where it is known, else file, size and time."""
    stored = installed(model, wish)
    if stored.manifest:
        return f"{stored.label} {stored.manifest.sha256}"
    status = stored.path.stat()
    return f"{stored.path} {status.st_size} {status.st_mtime_ns}"
