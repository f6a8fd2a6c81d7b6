"""Several models for `mixcli serve`: which ones, by which names, and how they are planned, loaded and unloaded."""

import contextlib
import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from mixcli.client.process import Host, Loading, stop
from mixcli.errors import MixcliError, UsageError
from mixcli.host.protocol.host_spec import LoadPlan
from mixcli.planning.beside import SharedMemory, is_as_good, plan_each, shared_memory, size_of, turns
from mixcli.planning.launch import begin
from mixcli.planning.load_options import LoadOptions
from mixcli.serve.eviction import Ledger, fits
from mixcli.serve.loader import Planned, RunningHost
from mixcli.serve.model_names import ServedModel, ServedModels, aliases_by_label
from mixcli.store.store import StoredModel
from mixcli.system.console import console
from mixcli.system.text import first_repeated
from quantize.parallel import in_parallel


@dataclass(frozen=True)
class FleetChoice:
    """The models of a port as the command line names them: those that stay loaded, and NAME=MODEL for each alias.

    Of `is_all` models those that cannot be loaded are left out.
    """

    stored: tuple[StoredModel, ...]
    kept: tuple[str, ...] = ()
    aliases: tuple[str, ...] = ()
    is_all: bool = False


@dataclass(frozen=True)
class Fleet:
    """The models of a port with the plan of each, and the memory that they share."""

    served_models: ServedModels
    loader: "HostLoader"
    memory: SharedMemory


def fleet_of(choice: FleetChoice, load_options: LoadOptions) -> Fleet:
    """Plan all models before the port is open; raises why one of them cannot be loaded."""
    labels = [model.label for model in choice.stored]
    if (twice := first_repeated(labels)) is not None:
        raise UsageError(f"{twice} is given twice; pass it once")
    named = ServedModels([ServedModel(label) for label in labels])
    kept = frozenset(_served(name, named).label for name in choice.kept)
    aliases = aliases_by_label(choice.aliases, named)
    memory = shared_memory(load_options)
    plans, refused = plan_each(choice.stored, kept, memory, load_options)
    for label, error in refused.items():
        if not choice.is_all or label in kept:
            raise error
        console.note(f"not served: {error}")
    for note in turns(plans):
        console.note(note)
    models = [
        ServedModel(
            one.label,
            size_of(one),
            plans[one.label].placement.n_ctx,
            memory.needs(plans[one.label]),
            aliases.get(one.label, ()),
            one.label in kept,
        )
        for one in choice.stored
        if one.label in plans
    ]
    if not models:
        raise next(iter(refused.values()))
    stored = {one.label: one for one in choice.stored}
    return Fleet(ServedModels(models), HostLoader(stored, plans, memory, load_options), memory)


def _served(name: str, served_models: ServedModels) -> ServedModel:
    model = served_models.find(name)
    if model is None:
        raise UsageError(f"--keep {name} is not served; this server has {served_models.listed()}")
    return model


class HostLoader:
    """Loads models as hosts, each with a plan for the memory that is left; used in several threads at a time."""

    def __init__(
        self,
        stored: Mapping[str, StoredModel],
        alone: Mapping[str, LoadPlan],
        memory: SharedMemory,
        load_options: LoadOptions,
    ) -> None:
        self._stored, self._alone, self._memory, self._load_options = stored, alone, memory, load_options
        self._lock = threading.Lock()
        self._loading: list[Loading] = []
        self._hosts: list[Host] = []
        self._told: set[tuple[str, str]] = set()
        self._is_closed = False

    def plan(self, model: ServedModel, left: Ledger) -> Planned:
        """Plan a model for what is left of the memory; raises an error with the reason where it does not fit."""
        from mixcli.planning.plan_load import plan_load

        plan = plan_load(self._stored[model.label], self._load_options, left)
        needs = self._memory.needs(plan)
        return Planned(needs, fits(needs, left) and is_as_good(plan, self._alone[model.label]), plan)

    def load(self, model: ServedModel, planned: Planned, report: Callable[[float], None]) -> Host:
        """Load a model, or attach to the host that another program has started for it."""
        assert isinstance(planned.order, LoadPlan)
        self._tell_once(model.label, planned.order.reasons)
        loading = begin(self._stored[model.label], self._load_options, 0.0, plan=planned.order)
        with self._lock:
            self._loading.append(loading)
            is_late = self._is_closed
        if is_late:
            loading.cancel()
        try:
            host = loading.wait(lambda done, total, _: report(done / total))
        finally:
            with self._lock:
                self._loading.remove(loading)
        with self._lock:
            self._hosts.append(host)
        self._tell_once(model.label, host.notes)
        return host

    def _tell_once(self, label: str, notes: Sequence[str]) -> None:
        """Print what a plan or a host has to say of a model, but not at each of its loads."""
        for note in notes:
            if (label, note) not in self._told:
                self._told.add((label, note))
                console.note(f"{label}: {note}")

    def unload(self, host: RunningHost, *, anyway: bool = False) -> bool:
        """End a host and wait until its memory is free; False where another program uses it, unless `anyway`."""
        assert isinstance(host, Host)
        if not anyway and host.is_shared():
            return False
        host.release()
        stop(host.pid)
        with self._lock:
            self._hosts.remove(host)
        return True

    def answers(self, host: RunningHost) -> bool:
        """Return whether a host takes requests."""
        assert isinstance(host, Host)
        try:
            host.client.health()
        except (OSError, ValueError):
            return False
        return True

    def cause(self, host: RunningHost) -> str:
        """Return why a host ended, where it knew that itself; else nothing."""
        assert isinstance(host, Host)
        return host.known_cause()

    def note(self, text: str) -> None:
        """Print a note to stderr."""
        console.note(text)

    def close(self) -> None:
        """Release all hosts, and end those that are still loading; returns when the memory is free that no other program uses."""
        with self._lock:
            self._is_closed = True
            loading, hosts = list(self._loading), list(self._hosts)
        ends: Sequence[Callable[[], None]] = [
            *(one.cancel for one in loading),
            *(one.release for one in hosts),
        ]

        def end(number: int) -> None:
            with contextlib.suppress(MixcliError):  # one that does not end after SIGKILL
                ends[number]()

        for _ in in_parallel(end, range(len(ends)), len(ends), joins=False):
            pass
