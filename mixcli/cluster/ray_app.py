"""The application of deploy/ray/serve.yaml: the gate of `mixcli serve` as a deployment of Ray Serve, before the same replicas.

For clusters whose services are kept by `serve deploy` or KubeRay. Ray's own HTTP proxy is in front; it has no keys, so the gate requires one.
"""

from pathlib import Path
from typing import Any

import ray
import ray.exceptions
import ray.util.scheduling_strategies
from pydantic import BaseModel, ConfigDict, Field
from ray import serve

from mixcli.cluster.application import ReplicaCount, deployment
from mixcli.cluster.checked_nodes import Cluster
from mixcli.cluster.cluster_model import ClusterModel
from mixcli.cluster.replicas import Replicas
from mixcli.planning.load_options import LoadOptions
from mixcli.serve.cors import cors_of
from mixcli.serve.gate import Gate
from mixcli.serve.keys import KeyRing
from mixcli.serve.limits import Limits
from mixcli.serve.proxy import Proxy
from mixcli.serve.server import key_for
from mixcli.system.console import console
from profiles.request import PlanRequest, Purpose

ANY_ADDRESS = "0.0.0.0"  # where Ray's proxy listens is not known here: a key is required as for every address


class AppArguments(BaseModel):
    """The `args` of the application in a config file; names are those of the options of `mixcli serve`."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    model: str
    gpus: bool = Field(False, description="One replica for each GPU instead of one for each node.")
    replicas: int = Field(1, ge=1)
    max_replicas: int | None = Field(None, ge=1)
    ctx: int | None = Field(None, ge=64)
    kv: str | None = None
    purpose: Purpose = "chat"
    api_key_env: str = "MIXCLI_API_KEY"
    api_keys: Path | None = None
    max_concurrency: int | None = Field(None, ge=1)
    allow_origin: tuple[str, ...] = ()


class GateDeployment:
    """The gate, in a process of the cluster: keys come from the environment variable, or the file, of its node."""

    def __init__(self, replicas: Any, arguments: AppArguments) -> None:
        file = arguments.api_keys
        key = key_for(ANY_ADDRESS, arguments.api_key_env, has_others=file is not None)
        keys = KeyRing(key, file, console.warn)
        self._gate = Gate(frozenset(), keys, cors_of(arguments.allow_origin, has_key=True))
        self._limits = Limits(arguments.max_concurrency)
        self._replicas = Replicas()
        self._replicas.ready(replicas)

    def __serve_build_asgi_app__(self) -> Proxy:
        return Proxy(self._gate, self._limits, self._replicas)


def app(arguments: AppArguments) -> Any:
    """Return the application: a gate before the replicas of a model; UsageError where nodes differ in their weights or versions.

    Ray Serve calls it in a task on the cluster; `serve build`, which only reads names, calls it elsewhere.
    """
    request = PlanRequest(n_ctx=arguments.ctx, kv=arguments.kv).for_work(arguments.purpose)
    count = ReplicaCount(arguments.replicas, max(arguments.replicas, arguments.max_replicas or 0))
    model = ClusterModel(arguments.model, LoadOptions(request))
    expected = Cluster(ray, model, has_gpus=arguments.gpus).expected if ray.is_initialized() else None
    replicas = deployment(count, has_gpus=arguments.gpus).bind(model, expected)
    gate = serve.deployment(name="Gate", max_ongoing_requests=1000)(serve.ingress()(GateDeployment))
    return gate.bind(replicas, arguments)
