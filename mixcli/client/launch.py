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


def load(model: str | None, load_options: LoadOptions, keep_alive: float, isolation_key: str = "") -> Host:
    """Return the loaded model, held until `release`; the load is shown on stderr. `keep_alive` is seconds after that.

    Loads with the same `isolation_key` share a host.
    """
    stored = installed(model, load_options)
    with console.progress(f"loading {stored.label}") as bar:
        host = acquire(stored, load_options, keep_alive, bar.update, isolation_key=isolation_key)
    for note in host.notes:
        console.note(note)
    return host


def installed(model: str | None, load_options: LoadOptions) -> StoredModel:
    """Return the installed model that a name means; NotInstalled has the file that `mixcli pull` would bring and its rate for this wish."""
    try:
        return find(model)
    except NotInstalled as missing:
        from mixcli.planning.offers import with_offer

        raise with_offer(missing, load_options) from None


def acquire(
    stored: StoredModel,
    load_options: LoadOptions,
    keep_alive: float,
    report: Callable[[float, float, str], None],
    placed: Callable[[LoadPlan], None] = lambda _order: None,
    *,
    use_smaller_plan: bool = False,
    isolation_key: str = "",
) -> Host:
    """Find the host of a model or start it, and wait until it is loaded; nothing is printed.

    The file is looked at and the plan is made only when no host has the model yet; `placed` receives the plan. `use_smaller_plan` takes the next
    smaller plan, for when memory ran out with the first.
    """

    def order() -> LoadPlan:
        from mixcli.planning.plan_load import plan_load

        found = plan_load(stored, load_options)
        found = found.smaller if use_smaller_plan and found.smaller else found
        placed(found)
        return found

    usage.note(stored.path)
    return connect(host_name(stored, load_options, isolation_key), order, keep_alive, report)


def host_name(stored: StoredModel, load_options: LoadOptions, isolation_key: str = "") -> HostName:
    """Return the name under which the host of a model and a wish is found."""
    return HostName(
        stored.path, stored.label, json.dumps(asdict(load_options), sort_keys=True) + isolation_key
    )


def identity(model: str | None, load_options: LoadOptions) -> str:
    """Return in one line which weights a name means here: their checksum where it is known, else file, size and time."""
    stored = installed(model, load_options)
    if stored.manifest:
        return f"{stored.label} {stored.manifest.sha256}"
    status = stored.path.stat()
    return f"{stored.path} {status.st_size} {status.st_mtime_ns}"
