"""Deploy a model on a cluster as an application of Ray Serve, wait for its replicas, watch them, and end it."""

import contextlib
import io
import logging
import threading
import time
from typing import Any, NamedTuple, NoReturn

import mixcli
from mixcli.cluster.cluster_model import ClusterModel, NodeReport, describe
from mixcli.cluster.connection import INSTALL, cause
from mixcli.cluster.load_refused import refused_load
from mixcli.cluster.nodes import ClusterNode, engine_resources, nodes_of, on_node
from mixcli.errors import InUse, MixcliError, NotReachable, UsageError
from mixcli.host.protocol.errors import ErrorBody, raise_error
from mixcli.system.console import console
from mixcli.system.formatting import counted

NODE_TIMEOUT = 120.0  # seconds for a node to start a process and look into its store
LOAD_TIMEOUT = 1800.0  # seconds until the first replica has loaded the model
POLL_INTERVAL = 0.5  # seconds between two looks at a start
WATCH_INTERVAL = 5.0  # seconds between two looks at replicas that run
MAX_RUNNING = 32  # requests of a replica at a time; the host queues what it cannot compute at once
MAX_QUEUED = 1000  # requests that wait for a replica
TARGET_RUNNING = 8  # requests of a replica above which Ray Serve starts another one, up to the maximum
LONGEST_ANSWER = 600.0  # seconds that a replica which is to end may still answer: one that scaling down has chosen tears no stream
MIN_RAY = (2, 60)
NAMESPACE = "mixcli"
DEPLOYMENT = "Replica"
ROUTER = "mixcli.cluster.router.ConversationRouter"


class ReplicaCount(NamedTuple):
    """How many replicas run: from `least` to `most`, by load."""

    least: int
    most: int

    def __str__(self) -> str:
        return str(self.least) if self.least == self.most else f"{self.least} to {self.most}"


class Cluster:
    """The nodes of a cluster that can run a replica, all of which have the same weights for the name of a model."""

    def __init__(self, ray: Any, model: ClusterModel) -> None:
        nodes = nodes_of(ray)
        self.has_gpus = any(node.n_gpus for node in nodes)
        self.nodes = [node for node in nodes if node.n_gpus or not self.has_gpus]
        if not self.nodes:
            raise NotReachable("the Ray cluster has no running node with a free CPU")
        self.identity = _one_identity(_reports(ray, self.nodes, model))

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
            report: NodeReport | ErrorBody = ray.get(reference)
        except ray.exceptions.RayError as error:
            raise NotReachable(
                f"node {node.address} cannot run mixcli {mixcli.__version__} ({cause(error)}); install the same version there"
            ) from error
        if isinstance(report, ErrorBody):
            advice = "to leave the node out, start it with `ray start --num-cpus 0`"
            raise_error(report._replace(message=f"node {node.address}: {report.message}; {advice}"))
        found[f"{node.address} ({node.id[:8]})"] = report
    return found


def _one_identity(reports: dict[str, NodeReport]) -> str:
    """Return the weights that all nodes have; UsageError where nodes differ in them, or in their version of mixcli."""
    for place, report in reports.items():
        if report.version != mixcli.__version__:
            raise UsageError(
                f"node {place} has mixcli {report.version}, and this machine {mixcli.__version__}; install the same version on all"
            )
    found = {report.identity for report in reports.values()}
    if len(found) > 1:
        said = "; ".join(f"{place} has {report.identity}" for place, report in reports.items())
        raise UsageError(f"the nodes have different weights for that model name: {said}")
    return found.pop()


def deployment(count: ReplicaCount, *, has_gpus: bool) -> Any:
    """Return the deployment whose replicas have a GPU each, or a node; `bind` it to a ClusterModel."""
    from ray import serve

    from mixcli.cluster.replica import Replica

    number = (
        {"num_replicas": count.least}
        if count.least == count.most
        else {
            "autoscaling_config": {
                "min_replicas": count.least,
                "max_replicas": count.most,
                "target_ongoing_requests": TARGET_RUNNING,
            }
        }
    )
    return serve.deployment(
        name=DEPLOYMENT,
        ray_actor_options=dict(engine_resources(has_gpu=has_gpus)),
        max_replicas_per_node=None if has_gpus else 1,
        max_ongoing_requests=MAX_RUNNING,
        max_queued_requests=MAX_QUEUED,
        max_constructor_retry_count=3,
        health_check_period_s=WATCH_INTERVAL,
        graceful_shutdown_wait_loop_s=1,
        graceful_shutdown_timeout_s=LONGEST_ANSWER,
        request_router_config={"request_router_class": ROUTER},
        **number,
    )(Replica)


class _Front:
    """An actor that exists as long as the command that serves an application, so that a second one is refused."""


class Application:
    """The replicas of one model on a cluster; those of a command that was killed are taken over."""

    def __init__(self, ray: Any, cluster: Cluster, model: ClusterModel, count: ReplicaCount) -> None:
        self._ray, self._count = ray, count
        self._serve = _ray_serve()
        self.name = model.application(cluster.identity)
        self._bound = deployment(count, has_gpus=cluster.has_gpus).bind(model)
        self._lease: Any = None  # an actor that ends with this process, however that ends
        self._stopped = threading.Event()
        self._watch = threading.Thread(target=self._look, name="replicas", daemon=True)
        self._starts_serve = False

    def deploy(self) -> None:
        """Start the replicas; InUse where another command serves the same application."""
        self._lease = self._leased()
        try:
            self._deploy()
        except (
            self._ray.exceptions.RayError,
            self._serve.exceptions.RayServeException,
            TimeoutError,
        ) as error:
            raise NotReachable(
                f"Ray Serve cannot start the replicas ({cause(error)}); see `ray status`"
            ) from error

    def _deploy(self) -> None:
        before = self._serve.status()
        self._starts_serve = not before.proxies and not before.applications
        if self.name in before.applications:
            console.note(f"the cluster runs {self.name} already; its replicas are used")
        if self._starts_serve:
            self._serve.start(proxy_location="Disabled")  # the port of this command is the only way in
        target = self._serve.RunTarget(self._bound, name=self.name, route_prefix=None)
        self._serve.run_many([target], wait_for_applications_running=False)

    def wait(self) -> Any:
        """Return the handle of the replicas once one has loaded the model; MixcliError says why none can."""
        deadline = time.monotonic() + LOAD_TIMEOUT
        said = ""
        while not (state := self._state()).n_running:
            if state.has_failed:
                _raise_failure(state.message)
            if state.message != said:
                said = state.message
                console.note(f"waiting for a replica: {first_line(said)}")
            if time.monotonic() > deadline:
                raise NotReachable(
                    f"no replica has loaded the model within {LOAD_TIMEOUT / 60:.0f} minutes; see `ray status` and `serve status`"
                )
            time.sleep(POLL_INTERVAL)
        self._watch.start()
        return self._serve.get_app_handle(self.name)

    def end(self) -> None:
        """End the replicas, and Ray Serve where this command started it and nothing else uses it; a warning names what stays."""
        self._stopped.set()
        if self._lease is None:  # the application is another command's, or was not deployed
            return
        try:
            self._serve.delete(self.name)
            if self._starts_serve and not self._serve.status().applications:
                # Ray reports the calls that the end of Serve cuts off on stdout
                with contextlib.redirect_stdout(io.StringIO()):
                    self._serve.shutdown()
                    self._ray.shutdown()
        except Exception as error:  # the cluster is gone, or does not answer
            console.warn(f"the application {self.name} may still run on the cluster ({cause(error)})")

    def _leased(self) -> Any:
        here = self._ray.get_runtime_context().get_node_id()
        near = self._ray.util.scheduling_strategies.NodeAffinitySchedulingStrategy(here, soft=True)
        front = self._ray.remote(_Front).options(
            name=self.name, namespace=NAMESPACE, num_cpus=0, scheduling_strategy=near
        )
        try:
            return front.remote()
        except ValueError as error:  # the name is taken
            raise InUse(
                f"another `mixcli serve --ray` serves this model on the cluster as {self.name}; end it first, or use its port"
            ) from error

    def _state(self) -> "_State":
        try:
            status = self._serve.status().applications.get(self.name)
        except self._ray.exceptions.RayError as error:
            raise NotReachable(f"Ray Serve does not respond ({cause(error)}); see `ray status`") from error
        if status is None:
            return _State(0, "", False)
        if DEPLOYMENT not in status.deployments:
            return _State(0, status.message, status.status == "DEPLOY_FAILED")
        found = status.deployments[DEPLOYMENT]
        n_running = found.replica_states.get("RUNNING", 0)
        return _State(n_running, found.message or status.message, status.status == "DEPLOY_FAILED")

    def _look(self) -> None:
        """Note how many replicas run, and what Ray Serve says of those that do not, each time that it changes."""
        said: tuple[int, str] | None = None
        while not self._stopped.wait(WATCH_INTERVAL if said else 0.0):
            try:
                state = self._state()
            except NotReachable as error:  # requests get errors of their own
                state = _State(0, str(error), has_failed=False)
            now = (state.n_running, state.message if state.n_running < self._count.least else "")
            if now != said and not self._stopped.is_set():
                said = now
                why = f": {first_line(now[1])}" if now[1] else ""
                console.note(f"{counted(state.n_running, 'replica')} of {self._count} running{why}")


class _State(NamedTuple):
    """What Ray Serve says of the replicas."""

    n_running: int
    message: str
    has_failed: bool


def first_line(message: str) -> str:
    """Return what Ray Serve says in one line: the error of a replica that did not start, or its own first sentence."""
    refused = refused_load(message)
    if refused is not None:
        return refused.message
    return next((line.strip() for line in message.splitlines() if line.strip()), "")[:300]


def _raise_failure(message: str) -> NoReturn:
    refused = refused_load(message)
    if refused is not None:
        raise_error(refused)
    last = next((line.strip() for line in reversed(message.splitlines()) if line.strip()), "no reason given")
    raise MixcliError(f"the replicas cannot start: {last[:300]}; see `serve status`")


def _ray_serve() -> Any:
    """Return ray.serve; UsageError where that part of Ray is not installed."""
    try:
        from ray import __version__, serve
    except ImportError as error:
        raise UsageError(
            f"serve --ray needs Ray Serve, which is not installed ({error}); {INSTALL}"
        ) from error
    if tuple(map(int, __version__.split(".")[:2])) < MIN_RAY:
        least = ".".join(map(str, MIN_RAY))
        raise UsageError(f"serve --ray needs Ray {least} or newer, and this is {__version__}; {INSTALL}")
    logging.getLogger("ray.serve").setLevel(logging.ERROR)  # what it does is noted here in our words
    return serve
