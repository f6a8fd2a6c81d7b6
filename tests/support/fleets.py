"""A port with several small models, each in a host of its own, in the test's own process."""

import contextlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from mixcli.client.process import hosts
from mixcli.commands.serving import Fleet, FleetChoice, fleet_of
from mixcli.planning.load_options import LoadOptions
from mixcli.serve.addresses import bound
from mixcli.serve.limits import Limits
from mixcli.serve.server import PortServer
from mixcli.serve.several_models import SeveralModels
from mixcli.store.store import StoredModel
from profiles.request import PlanRequest
from tests.support import forked_hosts
from tests.support.ports import LOOPBACK, Asked
from tests.support.tiny_models import tiny_model

VOCABULARIES = {"red": 320, "green": 352, "blue": 384}  # tokens of each model, which tell whose an answer is
NEEDS = 277 << 20  # bytes that a plan takes for one of them, nearly all for the process


def small_models(folder: Path) -> list[StoredModel]:
    """Write three models that answer nonsense, each with other weights and another vocabulary."""
    return [
        StoredModel(tiny_model(folder / f"{name}.gguf", n_expert=0, seed=seed, n_vocab=n_vocab))
        for seed, (name, n_vocab) in enumerate(VOCABULARIES.items())
    ]


@dataclass(frozen=True)
class FleetPort(Asked):
    """A port that is served, its models, and how to ask it."""

    number: int
    fleet: Fleet
    models: SeveralModels


@contextlib.contextmanager
def served_fleet(
    stored: Sequence[StoredModel],
    *,
    n_fitting: float = 9,
    idle_limit: float = -1,
    kept: Sequence[str] = (),
    aliases: Mapping[str, str] = {},
    preload: bool = False,
) -> Iterator[FleetPort]:
    """Serve models in memory for `n_fitting` of them; the first is loaded, and no host is left afterwards."""
    options = LoadOptions(PlanRequest(n_ctx=256), ram=int(n_fitting * NEEDS))
    said = tuple(f"{alias}={name}" for alias, name in aliases.items())
    fleet = fleet_of(FleetChoice(tuple(stored), tuple(kept), said), options)
    with forked_hosts.starting(), bound("127.0.0.1", 0) as listener:
        models = SeveralModels(fleet.served_models, fleet.memory.limits, fleet.loader, idle_limit)
        try:
            with PortServer(listener, LOOPBACK, Limits(), models).running():
                models.preload(others=preload).result(60)
                yield FleetPort(listener.getsockname()[1], fleet, models)
        finally:
            fleet.loader.close()
    assert hosts() == []
