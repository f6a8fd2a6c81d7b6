"""The nodes of a cluster that can run a replica, compared before anything is loaded: versions of mixcli, and weights by content."""

from typing import Any

import mixcli
from mixcli.cluster.cluster_model import ClusterModel, NodeReport, describe
from mixcli.cluster.connection import cause
from mixcli.cluster.nodes import ClusterNode, nodes_of, on_node
from mixcli.errors import NotReachable, UsageError
from mixcli.host.protocol.errors import ErrorBody, raise_error
from mixcli.store.weights import Weights

NODE_TIMEOUT = 120.0  # seconds for a node to start a process and look into its store


class Cluster:
    """The nodes of a cluster that can run a replica, all of which have the same weights for the name of a model.

    With `has_gpus` these are the nodes with GPUs. None: with GPUs if there are any.
    """

    def __init__(self, ray: Any, model: ClusterModel, *, has_gpus: bool | None = None) -> None:
        nodes = nodes_of(ray)
        self.has_gpus = any(node.n_gpus for node in nodes) if has_gpus is None else has_gpus
        self.nodes = [node for node in nodes if node.n_gpus or not self.has_gpus]
        if not self.nodes:
            raise NotReachable(
                f"the Ray cluster has no running node with a free {'GPU' if self.has_gpus else 'CPU'}; see `ray status`"
            )
        self.expected = agreed(_reports(ray, self.nodes, model))

    @property
    def weights(self) -> Weights:
        """Return the weights that all nodes have."""
        return self.expected.weights

    @property
    def n_places(self) -> int:
        """Return how many replicas the nodes have room for now."""
        return sum(node.n_engines for node in self.nodes)


def _reports(ray: Any, nodes: list[ClusterNode], model: ClusterModel) -> dict[str, NodeReport]:
    """Return what each node has, by address and id; MixcliError for the first that cannot run a replica."""
    task = ray.remote(describe)
    asked = {
        task.options(num_cpus=0, scheduling_strategy=on_node(ray, node)).remote(model): node for node in nodes
    }
    ready, late = ray.wait(list(asked), num_returns=len(asked), timeout=NODE_TIMEOUT)
    if late:
        raise NotReachable(
            f"node {asked[late[0]].address} did not respond within {NODE_TIMEOUT:.0f} seconds; see `ray status`"
        )
    found = {}
    for reference in ready:
        node = asked[reference]
        try:
            report: NodeReport | ErrorBody = ray.get(reference, timeout=NODE_TIMEOUT)
        except ray.exceptions.RayError as error:
            raise NotReachable(
                f"node {node.address} cannot run mixcli {mixcli.__version__} ({cause(error)}); install the same version there"
            ) from error
        if isinstance(report, ErrorBody):
            advice = "to leave the node out, start it with `ray start --num-cpus 0`"
            raise_error(report._replace(message=f"node {node.address}: {report.message}; {advice}"))
        found[f"{node.address} ({node.id[:8]})"] = report
    return dict(sorted(found.items()))


def agreed(reports: dict[str, NodeReport]) -> NodeReport:
    """Return what all nodes have; UsageError that names the nodes that differ in their weights, or in their version of mixcli."""
    (first, expected), *others = reports.items()
    for place, report in reports.items():
        if report.version != mixcli.__version__:
            raise UsageError(
                f"node {place} has mixcli {report.version}, and this machine {mixcli.__version__}; install the same version on all"
            )
    said = [
        f"node {place}: {', '.join(differences)}"
        for place, report in others
        if (differences := expected.weights.differences(report.weights))
    ]
    if said:
        raise UsageError(
            f"the nodes have different weights for {expected.weights.label}: compared with node {first}, {'; '.join(said)}; "
            "copy or pull the same files everywhere"
        )
    return expected


__all__ = ["Cluster", "agreed"]
