"""Client connections of `serve`: timeouts for reading, a limit on their number, and errors in OpenAI's form."""

import asyncio
import contextlib
import resource
import time
from typing import Any

import h11

from mixcli.serve.exchange import REQUEST_ID, request_id
from mixcli.serve.refusal import NOT_HTTP
from mixcli.system import connection

HEAD = 10.0  # seconds for the head of a request, from the connection or its first byte
MAX_CONNECTIONS = 400  # connections at a time; each takes two descriptors, of 1,024 in many systems
OTHERS = 64  # descriptors for all else


def max_connections(most: int = MAX_CONNECTIONS) -> int:
    """Return how many connections there are descriptors for, once this process may have as many as the system lets it: macOS begins with 256."""
    wanted = OTHERS + 2 * most
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft != resource.RLIM_INFINITY and soft < wanted:
        more = wanted if hard == resource.RLIM_INFINITY else min(hard, wanted)
        with contextlib.suppress(OSError, ValueError):
            resource.setrlimit(resource.RLIMIT_NOFILE, (more, hard))
            soft = more
        return max(1, min(most, (soft - OTHERS) // 2))
    return most


class GateConnection(connection.PatientConnection):
    """One that does not wait forever for the rest of a head either.

    Where there are too many, the one goes that has been waiting longest for a request or the rest of one: so half-open connections do
    not keep others out.
    """

    patience = 30.0  # seconds: the client is a program
    max_connections = MAX_CONNECTIONS
    waits_since = 0.0  # on the clock of time.monotonic
    _timer: asyncio.TimerHandle | None = None

    def connection_made(self, transport: Any) -> None:
        super().connection_made(transport)
        self.waits_since = time.monotonic()
        self._watch()
        if len(self.connections) > self.max_connections:
            self._make_room()

    def data_received(self, data: bytes) -> None:
        super().data_received(data)
        self._watch()

    def connection_lost(self, exc: Exception | None) -> None:
        self._unwatch()
        super().connection_lost(exc)

    def on_response_complete(self) -> None:
        self.waits_since = time.monotonic()
        super().on_response_complete()

    def send_400_response(self, msg: str) -> None:  # noqa: ARG002  # uvicorn's name
        """Answer what is not HTTP; after the beginning of an answer no error can be sent."""
        if self.conn.our_state not in (h11.IDLE, h11.SEND_RESPONSE):
            self.transport.abort()
            return
        body = NOT_HTTP.body()
        headers = [
            *NOT_HTTP.headers,
            (REQUEST_ID, request_id(())),
            (b"content-length", b"%d" % len(body)),
            (b"connection", b"close"),
        ]
        for event in (
            h11.Response(status_code=NOT_HTTP.status, headers=headers, reason=b"Bad Request"),
            h11.Data(data=body),
            h11.EndOfMessage(),
        ):
            self.transport.write(self.conn.send(event))
        self.transport.close()

    @property
    def is_waiting(self) -> bool:
        """Return whether no whole request has come."""
        return self.conn.their_state in (h11.IDLE, h11.SEND_BODY)

    def _make_room(self) -> None:
        waiting = [one for one in self.connections if isinstance(one, GateConnection) and one.is_waiting]
        min(waiting, key=lambda one: one.waits_since, default=self).transport.abort()

    def _watch(self) -> None:
        if self.conn.their_state is not h11.IDLE:
            self._unwatch()
        elif self._timer is None:
            self._timer = self.loop.call_later(HEAD, self._late)

    def _unwatch(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _late(self) -> None:
        self._timer = None
        if self.conn.their_state is h11.IDLE:
            self.transport.abort()
