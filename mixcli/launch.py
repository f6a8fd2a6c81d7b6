"""From the name of a model to a loaded one: which file, what fits, which process."""

import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, replace

from mixcli.console import console
from mixcli.host.process import Host, connect
from mixcli.host.spec import HostName, Order
from mixcli.hub import usage
from mixcli.hub.store import StoredModel, find
from mixcli.wish import Wish
from profiles.errors import DoesNotFit
from profiles.expectation import expectation
from profiles.machine import Machine
from profiles.planner import plan
from profiles.shape import ModelShape

SMALLER = 0.9  # of every budget, for the plan that is tried when memory runs out all the same


def load(model: str | None, wish: Wish, keep_alive: float) -> Host:
    """Give the loaded model, held until `leave`; the load is shown on stderr. `keep_alive` is seconds after that."""
    stored = find(model)
    with console.progress(f"loading {stored.label}") as bar:
        host = hold(stored, wish, keep_alive, bar.update)
    for note in host.notes:
        console.note(note)
    return host


def hold(
    stored: StoredModel,
    wish: Wish,
    keep_alive: float,
    report: Callable[[float, float, str], None],
    placed: Callable[[Order], None] = lambda _order: None,
    *,
    less: bool = False,
) -> Host:
    """Find the host of a model or start it, and wait until it is loaded; nothing is printed.

    The file is looked at and the plan is made only when no host has the model yet; `placed` hears of it. `less` takes the next
    smaller plan, for when memory ran out with the first.
    """

    def order() -> Order:
        found = place(stored, wish)
        found = found.smaller if less and found.smaller else found
        placed(found)
        return found

    usage.note(stored.path)
    return connect(host_name(stored, wish), order, keep_alive, report)


def host_name(stored: StoredModel, wish: Wish) -> HostName:
    """Give the name under which the host of a model and a wish is found."""
    return HostName(stored.path, stored.label, json.dumps(asdict(wish), sort_keys=True))


@contextmanager
def loaded(model: str | None, wish: Wish, keep_alive: float) -> Iterator[Host]:
    """Hold a loaded model while the block runs."""
    host = load(model, wish, keep_alive)
    try:
        yield host
    finally:
        host.leave()


def place(stored: StoredModel, wish: Wish) -> Order:
    """Look at the file before anything loads it, and plan it for its machine."""
    from mixcli.engine.preflight import check_gguf
    from mixcli.hub.headers import shape_of
    from mixcli.insight.machines import machine_of

    shape = shape_of(check_gguf(stored.path))
    machine = machine_of(wish.profile, wish.vram, wish.ram, wish.workers)
    order = _tuned(stored, shape, machine, wish) or _order(shape, machine, wish)
    less = replace(
        machine,
        bytes_free=int(machine.bytes_free * SMALLER),
        gpus=tuple(replace(gpu, bytes_free=int(gpu.bytes_free * SMALLER)) for gpu in machine.gpus),
    )
    try:
        smaller = _order(shape, less, wish)
    except DoesNotFit:
        return order
    return order if smaller.placement == order.placement else replace(order, smaller=smaller)


def _order(shape: ModelShape, machine: Machine, wish: Wish) -> Order:
    found = plan(shape, machine, wish.request)
    return Order(replace(found.placement, workers=wish.workers), expectation(found.ledger))


def _tuned(stored: StoredModel, shape: ModelShape, machine: Machine, wish: Wish) -> Order | None:
    """Give what `mixcli tune` found for this wish, when it still fits."""
    from mixcli.insight.tuned import tuned
    from profiles.layout import layout_of
    from profiles.ledger import accounts

    placement = tuned(stored.path, shape, machine, wish.request)
    if placement is None:
        return None
    ledger = accounts(shape, machine, placement, layout_of(shape, placement, machine))
    return Order(replace(placement, workers=wish.workers), expectation(ledger))
