"""Deploy a model on a cluster as an application of Ray Serve, wait for its replicas, watch them, and end it."""

import contextlib
import io
import logging
import threading
import time
from typing import Any, NamedTuple, NoReturn

from mixcli.cluster.checked_nodes import Cluster
from mixcli.cluster.cluster_model import ClusterModel
from mixcli.cluster.connection import INSTALL, cause
from mixcli.cluster.load_refused import refused_load
from mixcli.cluster.nodes import engine_resources
from mixcli.cluster.serve_calls import CALL_TIMEOUT, CHANGE_TIMEOUT, held, serve_lock, within
from mixcli.errors import InUse, MixcliError, NotReachable, UsageError
from mixcli.host.protocol.errors import raise_error
from mixcli.system.console import console
from mixcli.system.formatting import counted

LOAD_TIMEOUT = 1800.0  # seconds until the first replica has loaded the model
POLL_INTERVAL = 0.5  # seconds between two looks at a start
WATCH_INTERVAL = 5.0  # seconds between two looks at replicas that run
MAX_RUNNING = 32  # requests of a replica at a time; the host queues what it cannot compute at once
MAX_QUEUED = 1000  # requests that wait for a replica
TARGET_RUNNING = 8  # requests of a replica above which Ray Serve starts another one, up to the maximum
LONGEST_ANSWER = 600.0  # seconds that a replica which is to end may still answer: one that scaling down has chosen tears no stream
MIN_RAY = (2, 60)
DEPLOYMENT = "Replica"
REMOVED = "the application was removed from the cluster; end this command, and rerun it"
ROUTER = "mixcli.cluster.router.ConversationRouter"


class ReplicaCount(NamedTuple):
    """How many replicas run: from `least` to `most`, by load."""

    least: int
    most: int

    def __str__(self) -> str:
        return str(self.least) if self.least == self.most else f"{self.least} to {self.most}"


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


class Application:
    """The replicas of one model on a cluster; those of a command that was killed are taken over."""

    def __init__(self, ray: Any, cluster: Cluster, model: ClusterModel, count: ReplicaCount) -> None:
        self._ray, self._count = ray, count
        self._serve = _ray_serve()
        self.name = model.application(cluster.weights)
        self._bound = deployment(count, has_gpus=cluster.has_gpus).bind(model, cluster.expected)
        self._has_begun = False  # to deploy; until then the cluster is as it was
        self._lease: Any = None  # an actor that ends with this process, in any way
        self._stopped = threading.Event()
        self._watch = threading.Thread(target=self._look, name="replicas", daemon=True)

    def deploy(self) -> None:
        """Start the replicas; InUse where another command serves the same application."""
        try:
            self._lease = self._leased()
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
        with serve_lock(self._ray):
            self._has_begun = True
            before = self._status()
            if self.name in before.applications:
                console.note(f"the cluster runs {self.name} already; its replicas are used")
            if not before.proxies and not before.applications:
                # the port of this command is the only way in
                within(
                    CHANGE_TIMEOUT,
                    "the start of Ray Serve",
                    lambda: self._serve.start(proxy_location="Disabled"),
                )
            target = self._serve.RunTarget(self._bound, name=self.name, route_prefix=None)
            within(
                CHANGE_TIMEOUT,
                f"the deployment of {self.name}",
                lambda: self._serve.run_many([target], wait_for_applications_running=False),
            )

    def wait(self) -> Any:
        """Return the handle of the replicas once one has loaded the model; MixcliError says why none can."""
        deadline = time.monotonic() + LOAD_TIMEOUT
        said = ""
        while not (state := self._state()).n_running:
            if not state.is_there:
                raise MixcliError(
                    f"{self.name} was removed from the cluster while its model loaded: Ray Serve was shut down, or another program deleted it; "
                    "rerun the command"
                )
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
        return within(
            CALL_TIMEOUT, f"the handle of {self.name}", lambda: self._serve.get_app_handle(self.name)
        )

    def end(self) -> None:
        """End the replicas, and Ray Serve where nothing else uses it; a warning names what stays."""
        self._stopped.set()
        if not self._has_begun:  # the application is another command's, or was not deployed
            return
        try:
            if self._removed():
                # Ray reports the calls that the end of Serve cuts off on stdout
                with contextlib.redirect_stdout(io.StringIO()):
                    within(CHANGE_TIMEOUT, "leaving the cluster", self._ray.shutdown)
        except Exception as error:  # the cluster is gone, or does not answer
            console.warn(f"the application {self.name} may still run on the cluster ({cause(error)})")

    def _removed(self) -> bool:
        """End the application; return whether Ray Serve was ended too: nothing else uses it, and it has no proxies, as those that we start."""
        with serve_lock(self._ray):
            if self.name in self._status().applications:
                within(
                    CHANGE_TIMEOUT,
                    f"the deletion of {self.name}",
                    lambda: self._serve.delete(self.name),
                )
            left = self._status()
            if left.applications or left.proxies:
                return False
            with contextlib.redirect_stdout(io.StringIO()):
                within(CHANGE_TIMEOUT, "the end of Ray Serve", self._serve.shutdown)
            return True

    def _status(self) -> Any:
        return within(CALL_TIMEOUT, "the state of Ray Serve", self._serve.status)

    def _leased(self) -> Any:
        """Return what exists as long as this command serves the application, so that a second one is refused."""
        try:
            return held(self._ray, self.name)
        except ValueError as error:  # the name is taken
            raise InUse(
                f"another `mixcli serve --ray` serves this model on the cluster as {self.name}; end it first, or use its port"
            ) from error

    def _state(self) -> "_State":
        try:
            status = self._status().applications.get(self.name)
        except self._ray.exceptions.RayError as error:
            raise NotReachable(f"Ray Serve does not respond ({cause(error)}); see `ray status`") from error
        if status is None:
            return _State(0, REMOVED, False, is_there=False)
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
    is_there: bool = True


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
