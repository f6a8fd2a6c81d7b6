"""Load a model by name: find its file, and attach to its host or start one.

This is on the way of every command that asks something, so it imports nothing that plans: plan_load.py does, when a host must start.
"""

import json
from collections.abc import Callable
from dataclasses import asdict
from typing import TYPE_CHECKING

from mixcli.client.process import Host, Loading, attach, start, start_lock
from mixcli.errors import NotInstalled
from mixcli.host.protocol.host_name import HostName
from mixcli.planning.load_options import LoadOptions
from mixcli.store import usage
from mixcli.store.store import StoredModel, find
from mixcli.system.console import console

if TYPE_CHECKING:
    from mixcli.host.protocol.host_spec import LoadPlan


def load(
    model: StoredModel | str | None,
    load_options: LoadOptions,
    keep_alive: float,
    isolation_key: str = "",
    report: Callable[[float], None] = lambda _: None,
    *,
    speculate: bool = False,
) -> Host:
    """Return the loaded model, held until `release`; the load is shown on stderr. `keep_alive` is seconds after that.

    `model` is a name, or what `installed` has found for one.
    Loads with the same `isolation_key` share a host. With `speculate` it is noted where the model follows no drafts. `report` gets how far the load is, from 0 to 1.
    """
    stored = model if isinstance(model, StoredModel) else installed(model, load_options)
    loading = begin(stored, load_options, keep_alive, isolation_key=isolation_key)
    if loading.plan:
        for reason in loading.plan.reasons:
            console.note(reason)
    with console.progress(f"loading {stored.label}") as bar:

        def show(done: float, total: float, stage: str) -> None:
            bar.update(done, total, stage)
            report(done / total)

        host = loading.wait(show)
    for note in (*host.notes, host.why_no_drafts if speculate else ""):
        if note:
            console.note(note)
    return host


def installed(model: str | None, load_options: LoadOptions) -> StoredModel:
    """Return the installed model that a name means; NotInstalled has the file that `mixcli pull` would download and its rate for this wish."""
    try:
        return find(model)
    except NotInstalled as missing:
        from mixcli.planning.offers import with_offer

        raise with_offer(missing, load_options) from None


def begin(
    stored: StoredModel,
    load_options: LoadOptions,
    keep_alive: float,
    *,
    use_smaller_plan: bool = False,
    isolation_key: str = "",
    plan: "LoadPlan | None" = None,
) -> Loading:
    """Attach to the host of a model, or start it with `plan`, or with one that is made only then; nothing is printed.

    `use_smaller_plan` takes the next smaller plan, for when memory ran out with the first.
    """
    usage.note(stored.path)
    name = host_name(stored, load_options, isolation_key)
    with start_lock(name):
        if running := attach(name, keep_alive):
            return running
        from mixcli.planning.machines import check_devices

        if plan is None:
            from mixcli.planning.plan_load import plan_load

            plan = plan_load(stored, load_options)
        check_devices(plan.expected, load_options)
        return start(name, plan.smaller if use_smaller_plan and plan.smaller else plan, keep_alive)


def host_name(stored: StoredModel, load_options: LoadOptions, isolation_key: str = "") -> HostName:
    """Return the name under which the host of a model and its options is found."""
    return HostName(
        stored.path, stored.label, json.dumps(asdict(load_options), sort_keys=True) + isolation_key
    )


def identity(model: str | None, load_options: LoadOptions) -> str:
    """Return in one line which weights a name means here: their checksum where the store keeps them, else one of samples.

    A type of the KV cache that is named is part of it, since answers depend on it; that of a plan may change from day to day.
    """
    from mixcli.store.weights import checksum_of, weights_of

    stored, kv = installed(model, load_options), load_options.request.kv
    if stored.manifest and stored.manifest.keeper != "user":
        weights = f"{stored.label} {checksum_of(stored.manifest)}"
    else:  # a file that its owner may have replaced since it was imported
        weights = str(weights_of(stored)._replace(checksum=""))
    return weights if kv in (None, "auto", "f16") else f"{weights}, KV cache {kv}"
