"""The replicas of a cluster behind the port: requests go out through Ray Serve's handle, and answers come back part by part."""

import asyncio
import contextlib
import json
from collections import Counter
from collections.abc import AsyncGenerator
from typing import Any

from mixcli.cluster.affinity import conversation
from mixcli.cluster.connection import lost_errors
from mixcli.cluster.messages import Begun, BodyPart, ClusterRequest, Part, ReplicaLook
from mixcli.host.protocol.messages import Fields, object_of
from mixcli.host.protocol.paths import HEALTH, LOADING, METRICS, READY
from mixcli.host.protocol.port_state import LOADED, PortModel, PortState
from mixcli.serve.exchange import Exchange
from mixcli.serve.forwarding import PASSED, raced
from mixcli.serve.gate import Accepted
from mixcli.serve.metrics import CONTENT_TYPE, Gauge, merged
from mixcli.serve.refusal import unavailable

ATTEMPTS = 2  # replicas that get a request of which nothing was sent back; not more, because the request may be what crashes them
ROUTE_TIMEOUT = 300.0  # seconds until a replica takes a request, while all are full or gone
LOOK_TIMEOUT = 3.0  # seconds for all replicas to say their state or their counts
LOADS = "the replicas are loading the model; retry in a few seconds"
JSON = [(b"content-type", b"application/json")]
TORN = unavailable("the replica was lost during the answer, with its node or process; retry the request")
LOST_TWICE = unavailable("two replicas were lost before the answer began; retry the request")
FULL = unavailable("all replicas are busy or gone; retry in a few seconds", retry_after=10)


class _Lost(Exception):
    """The replica of a request is gone."""


class Replicas:
    """Answers with the replicas behind a handle of Ray Serve. Until `ready` is called with it, requests wait. `label` is the model's name."""

    def __init__(self, label: str = "") -> None:
        self._label = label
        self._n_asked = 0  # requests that are being answered, or wait
        self._handle: Any = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._is_ready = asyncio.Event()
        self._counts: Counter[str] = Counter()

    async def open(self) -> None:
        """Begin, in the event loop of the port."""
        self._loop = asyncio.get_running_loop()

    async def close(self) -> None:
        """End; the handle belongs to Ray."""

    def ready(self, handle: Any) -> None:
        """Send requests through a handle from now on, those that have waited first; called in any thread."""
        self._handle = handle
        if self._loop is None:  # nothing waits yet
            self._is_ready.set()
            return
        with contextlib.suppress(RuntimeError):  # the port has ended
            self._loop.call_soon_threadsafe(self._is_ready.set)

    async def answer(self, exchange: Exchange, accepted: Accepted, body: bytes) -> None:
        """Answer a request that was let in."""
        self._n_asked += accepted.route.loads_model
        try:
            await raced(self._answer(exchange, accepted, body), exchange.gone())
        finally:
            self._n_asked -= accepted.route.loads_model

    def state(self) -> PortState:
        """Return what the port and its model do now, without asking a replica."""
        if self._handle is None:
            return PortState(LOADING, (PortModel(self._label, LOADING, 0.0, None, 0, self._n_asked),))
        return PortState(READY, (PortModel(self._label, LOADED, None, None, self._n_asked, 0),))

    async def _answer(self, exchange: Exchange, accepted: Accepted, body: bytes) -> None:
        path = accepted.route.path
        if not accepted.route.loads_model and (self._handle is None or path in (HEALTH, METRICS)):
            await self._look(exchange, accepted)
            return
        await self._is_ready.wait()
        headers = [(name, value) for name, value in exchange.headers if name.lower() in PASSED]
        request = ClusterRequest(accepted, headers, exchange.own_headers[0][1], body)
        key = await conversation(path, body)
        for attempt in range(1, ATTEMPTS + 1):
            try:
                await self._relay(exchange, request, key)
            except _Lost:
                self._counts["lost"] += 1
                if exchange.has_begun:
                    return
                self._counts["retried"] += attempt < ATTEMPTS
            else:
                return
        await exchange.refuse(LOST_TWICE)

    async def _relay(self, exchange: Exchange, request: ClusterRequest, key: str) -> None:
        """Send a request to a replica, and its answer to the client; _Lost where the replica is gone, told the client if its answer has begun."""
        begun: Begun | None = None  # until something of the body comes: before, another replica can answer
        try:
            async with contextlib.aclosing(_parts(self._handle, request, key)) as parts:
                async for part in parts:
                    if isinstance(part, Begun):
                        begun = part
                    elif isinstance(part, BodyPart):
                        if begun is not None:
                            await exchange.start(begun.status, list(begun.headers))
                            begun = None
                        await exchange.piece(part.body, more=part.more)
        except _Lost:
            if exchange.has_begun:
                await exchange.break_off(TORN, request.accepted.path)
            raise
        except _Full:
            await exchange.refuse(FULL)

    # looks

    async def _look(self, exchange: Exchange, accepted: Accepted) -> None:
        path = accepted.route.path
        if self._handle is None:
            fields = {"status": LOADING, "progress": 0.0} if path == HEALTH else {}
            await exchange.refuse(unavailable(LOADS, retry_after=2, **fields))
            return
        looks = await self._looks(path)
        if path == METRICS:
            pages = {look.replica: look.body.decode() for look in looks if look.status == 200}
            page = merged(pages, self._gauges(looks), label="replica")
            await exchange.whole(200, [(b"content-type", CONTENT_TYPE.encode())], page)
        else:
            status, shown = _health(looks, is_brief=accepted.is_brief)
            await exchange.whole(status, JSON, shown)

    async def _looks(self, path: str) -> list[ReplicaLook]:
        """Return what each replica says at a path; where one does not answer in time, what another one says alone."""
        from ray.exceptions import RayError
        from ray.serve.exceptions import RayServeException

        try:
            found = await self._handle.broadcast("look", path).results_async(
                timeout_s=LOOK_TIMEOUT, return_exceptions=True
            )
        except (RayError, RayServeException):
            return []
        except TimeoutError:  # a node that is cut off, until Ray notices
            found = [await self._look_at_one(path)]
        return sorted(one for one in found if isinstance(one, ReplicaLook))

    async def _look_at_one(self, path: str) -> ReplicaLook | None:
        response = self._handle.look.remote(path)
        try:
            async with asyncio.timeout(LOOK_TIMEOUT):
                look: ReplicaLook = await response
                return look
        except Exception:  # whatever it is, none answers
            response.cancel()
            return None

    def _gauges(self, looks: list[ReplicaLook]) -> list[Gauge]:
        return [
            Gauge("replica_up", "Whether a replica responds.", "replica", {look.replica: 1.0 for look in looks}),
            Gauge("cluster_requests", "Requests whose replica was lost, and those of them that another replica took over.", "event", {name: float(self._counts[name]) for name in ("lost", "retried")}, is_total=True),
        ]  # fmt: skip


class _Full(Exception):
    """No replica takes a request."""


async def _parts(handle: Any, request: ClusterRequest, key: str) -> AsyncGenerator[Part]:
    """Yield the parts of an answer, of which the first says that a replica has the request; what is not read to its end is cancelled.

    Raises _Full where no replica takes it, _Lost where its replica is gone.
    """
    import ray.exceptions
    from ray.serve.exceptions import BackPressureError, DeploymentUnavailableError

    response = handle.options(stream=True, session_id=key).answer.remote(request)
    is_over = False
    try:
        try:
            async with asyncio.timeout(ROUTE_TIMEOUT):
                taken = await anext(response)
        except (TimeoutError, BackPressureError, DeploymentUnavailableError) as error:
            raise _Full from error
        yield taken
        async for part in response:
            yield part
        is_over = True
    except ray.exceptions.RayTaskError:  # a bug in the replica, which is there
        raise
    except lost_errors(ray) as error:
        raise _Lost from error
    finally:
        if not is_over:
            response.cancel()


def _health(looks: list[ReplicaLook], *, is_brief: bool) -> tuple[int, bytes]:
    """Return the status and the body of /health: ready where one replica is."""
    states = [_state(look) for look in looks]
    is_ready = any(state["status"] == READY for state in states)
    shown: dict[str, object] = {"status": READY if is_ready else "unavailable", "progress": 1.0}
    if not is_brief:
        shown["replicas"] = states
    return 200 if is_ready else 503, json.dumps(shown).encode()


def _state(look: ReplicaLook) -> Fields:
    return {"replica": look.replica, "status": "unavailable", **object_of(json.loads(look.body))}
