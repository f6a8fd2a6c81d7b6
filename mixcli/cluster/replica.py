"""A replica of `serve --ray`: an actor of Ray Serve that holds a host of its node and hands requests on to it.

The host speaks the whole API over its unix socket, so a replica is what `serve` has behind its port, without the port.
"""

import asyncio
from collections.abc import AsyncIterator
from functools import partial
from pathlib import Path
from typing import Any, NoReturn

from mixcli.client.held_host import HeldHost
from mixcli.cluster.cluster_model import ClusterModel, NodeReport, own_report
from mixcli.cluster.load_refused import LoadRefused
from mixcli.cluster.messages import Begun, BodyPart, ClusterRequest, Part, ReplicaLook, Taken
from mixcli.cluster.nodes import isolation_key
from mixcli.errors import MixcliError
from mixcli.host.protocol.paths import find_route
from mixcli.serve.exchange import REQUEST_ID, Exchange
from mixcli.serve.gate import Accepted
from mixcli.serve.host_link import HostLink
from mixcli.serve.one_model import OneModel
from mixcli.serve.signs_of_life import SignsOfLife

HANGS = "the model process did not respond and was killed; Ray Serve starts another replica"
LOOK_TIMEOUT = 2.0  # seconds for the host to say its state or its counts


class Replica:
    """Holds the host of its node and answers with it. Ray Serve starts it, checks its health, and starts another one in its place."""

    def __init__(self, model: ClusterModel, expected: NodeReport | None = None) -> None:
        self._label = model.name or "the model"
        self._held = HeldHost(partial(model.load, isolation_key()), self._label)
        self._fault: str | None = None
        self._hangs = False
        self.name = _own_name()
        try:
            if (
                expected is not None
            ):  # of the nodes that were there at the start; this one may have joined later
                expected.check_same(own_report(model))
            self._socket = self._held.load().socket
        except MixcliError as error:
            raise LoadRefused.of(error) from None
        self._link = HostLink(self._socket)
        self._life = SignsOfLife(lambda: self._link)
        self._model: OneModel | None = None
        self._opening = asyncio.Lock()

    async def check_health(self) -> None:
        """Raise where the host could not be started again, or hangs: Ray Serve then replaces this replica.

        A host that hangs is killed: the next replica of this node would attach to it, and what it has begun to answer ends.
        """
        if not self._hangs and await self._life.look():
            self._hangs, self._fault = True, HANGS
            await asyncio.to_thread(self._held.kill)
        if self._hangs or self._fault is not None:
            raise RuntimeError(self._fault or HANGS)

    async def answer(self, request: ClusterRequest) -> AsyncIterator[Part]:
        """Yield that the request is here, and then the parts of its answer as the host sends them."""
        yield Taken(self.name)
        parts: asyncio.Queue[Part | None] = asyncio.Queue()
        work = asyncio.create_task(self._answer(request, parts))
        work.add_done_callback(lambda _: parts.put_nowait(None))
        try:
            while (part := await parts.get()) is not None:
                yield part
            await work
        finally:
            work.cancel()

    async def look(self, path: str) -> ReplicaLook:
        """Return what the host says at a path that is only read."""
        found = find_route(path)
        assert found is not None
        parts: asyncio.Queue[Part | None] = asyncio.Queue()
        try:
            async with asyncio.timeout(LOOK_TIMEOUT):
                await self._answer(ClusterRequest(Accepted(*found, b""), (), b"look", b""), parts)
        except TimeoutError:  # the host hangs; OneModel refuses its requests
            return ReplicaLook(self.name, 503, b"{}")
        whole = [parts.get_nowait() for _ in range(parts.qsize())]
        status = next((part.status for part in whole if isinstance(part, Begun)), 503)
        return ReplicaLook(
            self.name, status, b"".join(part.body for part in whole if isinstance(part, BodyPart))
        )

    async def _answer(self, request: ClusterRequest, parts: "asyncio.Queue[Part | None]") -> None:
        async def transmit(message: dict[str, Any]) -> None:
            if message["type"] == "http.response.start":
                headers = [header for header in message["headers"] if header[0] != REQUEST_ID]
                parts.put_nowait(Begun(message["status"], headers))
            else:
                parts.put_nowait(BodyPart(message["body"], message["more_body"]))

        scope = {"path": request.accepted.path, "headers": request.headers}
        exchange = Exchange(scope, _forever, transmit, [(REQUEST_ID, request.id)])
        await (await self._opened()).answer(exchange, request.accepted, request.body)

    async def _opened(self) -> OneModel:
        """Return the model behind this replica, whose clients belong to the event loop of its requests."""
        async with self._opening:
            if self._model is None:
                model = OneModel(self._revive, self._label, self._held.known_cause)
                await model.open()
                model.ready(self._socket)
                await asyncio.sleep(0)  # the socket is taken in the next round of the loop
                self._model = model
        return self._model

    def _revive(self) -> Path:
        if self._hangs:
            raise RuntimeError(HANGS)
        try:
            socket = self._held.revive()
        except Exception as error:
            self._fault = f"the model process crashed and cannot be started again: {error}"
            raise
        self._fault, self._link = None, HostLink(socket)
        return socket


async def _forever() -> NoReturn:
    """Wait for a client that leaves: Ray Serve cancels the whole answer then."""
    await asyncio.get_running_loop().create_future()
    raise AssertionError


def _own_name() -> str:
    """Return the address of the node and the id that Ray Serve gave this replica."""
    import ray.util
    from ray import serve

    return f"{ray.util.get_node_ip_address()}/{serve.get_replica_context().replica_id.unique_id}"
