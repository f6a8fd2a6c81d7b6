"""Where engines run in a Ray cluster: one for each GPU of a node, or one on a node without any."""

from collections.abc import Mapping
from typing import Any, NamedTuple


class ClusterNode(NamedTuple):
    """A running node with a CPU for an engine; `id` is Ray's, `address` the one that people know it by."""

    id: str
    address: str
    n_gpus: int

    @property
    def n_engines(self) -> int:
        return max(1, self.n_gpus)

    @property
    def resources(self) -> Mapping[str, float]:
        """Return what Ray counts for one engine. The cores are not divided: the engines of a node share them as hosts do."""
        return engine_resources(has_gpu=bool(self.n_gpus))


def engine_resources(*, has_gpu: bool) -> Mapping[str, float]:
    """Return the options of a Ray actor that is one engine."""
    return {"num_cpus": 1, "num_gpus": 1 if has_gpu else 0}


def nodes_of(ray: Any) -> list[ClusterNode]:
    """Return the nodes that have a CPU for an engine."""
    found = []
    for node in ray.nodes():
        resources = node.get("Resources", {})
        if node["Alive"] and resources.get("CPU", 0) >= 1:
            found.append(
                ClusterNode(node["NodeID"], node["NodeManagerAddress"], int(resources.get("GPU", 0)))
            )
    return found


def on_node(ray: Any, node: ClusterNode) -> Any:
    """Return the scheduling strategy that runs something on this node or not at all."""
    return ray.util.scheduling_strategies.NodeAffinitySchedulingStrategy(node.id, soft=False)


def near(ray: Any) -> Any:
    """Return the scheduling strategy that runs something on the node of this process, or on another one where that is lost."""
    here = ray.get_runtime_context().get_node_id()
    return ray.util.scheduling_strategies.NodeAffinitySchedulingStrategy(here, soft=True)


def isolation_key() -> str:
    """Return the key under which the engine of this Ray actor has its host: one for its GPUs alone, also where a node has several."""
    import ray

    context = ray.get_runtime_context()
    gpus = ",".join(context.get_accelerator_ids().get("GPU", ()))
    return f" ray {context.get_node_id()} {gpus}"
