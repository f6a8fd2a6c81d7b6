"""mixcli serve --ray: the port of this machine in front of replicas on a Ray cluster."""

import os
import re
from typing import TYPE_CHECKING

import click

from mixcli.errors import UsageError
from mixcli.system.console import console

if TYPE_CHECKING:
    from mixcli.cluster.application import ReplicaCount
    from mixcli.cluster.cluster_model import ClusterModel
    from mixcli.planning.load_options import LoadOptions
    from mixcli.serve.gate import Gate
    from mixcli.serve.limits import Limits

MAX_REPLICAS = 1000


def read_replicas(_ctx: click.Context, _param: click.Parameter, said: str | None) -> "ReplicaCount | None":
    """Return the least and the most replicas that --replicas names; UsageError where it is not N or MIN-MAX."""
    if said is None:
        return None
    from mixcli.cluster.application import ReplicaCount

    match = re.fullmatch(r"(\d{1,4})(?:-(\d{1,4}))?", said.strip())
    least, most = (int(match[1]), int(match[2] or match[1])) if match else (0, 0)
    if not 1 <= least <= most <= MAX_REPLICAS:
        raise UsageError(f"invalid --replicas {said!r}: use a number such as 4, or bounds such as 1-8")
    return ReplicaCount(least, most)


def serve_on_cluster(
    bind: tuple[str, int],
    gate: "Gate",
    limits: "Limits",
    models: tuple[str, ...],
    load_options: "LoadOptions",
    place: str,
    count: "ReplicaCount | None",
) -> None:
    """Serve one model with replicas on the cluster at `place`, behind a port of this machine at the address and port of `bind`."""
    from mixcli.cluster.cluster_model import ClusterModel
    from mixcli.system.own_stdout import own_stdout

    if place.startswith("ray://"):
        raise UsageError(
            f"--ray {place}: serve must run on a node of the cluster; join it with `ray start --address HOST:6379 --num-cpus 0`, and pass --ray auto"
        )
    name = models[0] if models else os.environ.get("MIXCLI_MODEL") or None
    with own_stdout():
        _serve(bind, gate, limits, ClusterModel(name, load_options), place, count)


def _serve(
    bind: tuple[str, int],
    gate: "Gate",
    limits: "Limits",
    model: "ClusterModel",
    place: str,
    count: "ReplicaCount | None",
) -> None:
    from mixcli.cluster.application import Application, ReplicaCount
    from mixcli.cluster.checked_nodes import Cluster
    from mixcli.cluster.connection import connected
    from mixcli.cluster.replicas import Replicas
    from mixcli.serve.addresses import bound, note_listening, urls
    from mixcli.serve.announcement import announced
    from mixcli.serve.server import PortServer

    ray = connected(place)
    try:
        cluster = Cluster(ray, model)
        n_places = cluster.n_places
        application = Application(ray, cluster, model, count or ReplicaCount(n_places, n_places))
        with bound(*bind) as listener:
            label = cluster.weights.label
            replicas = Replicas(label)
            server = PortServer(listener, gate, limits, replicas)
            with server.running(), announced(listener, bind[0], gate.look_key):
                port = note_listening(listener, bind[0], "the replicas are", has_page=bool(gate.pages))
                try:
                    application.deploy()
                    replicas.ready(application.wait())
                    where = " and ".join(urls(bind[0], port))
                    console.note(f"serving {label} on the cluster at {where}")
                    server.wait()
                finally:
                    application.end()
    finally:
        ray.shutdown()
