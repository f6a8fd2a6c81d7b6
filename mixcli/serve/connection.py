"""Client connections of `serve`: timeouts for reading, and a limit on their number."""

import asyncio
from typing import Any

import h11

from mixcli.system import connection

HEAD = 10.0  # seconds for the head of a request, from the connection or its first byte
MAX_CONNECTIONS = 400  # connections at a time; each takes two descriptors, of 1,024 in many systems


class GateConnection(connection.PatientConnection):
    """One that does not wait forever for the rest of a head either."""

    patience = 30.0  # seconds: the client is a program
    _timer: asyncio.TimerHandle | None = None

    def connection_made(self, transport: Any) -> None:
        super().connection_made(transport)
        self._watch()
        if len(self.connections) > MAX_CONNECTIONS:
            transport.abort()

    def data_received(self, data: bytes) -> None:
        super().data_received(data)
        self._watch()

    def connection_lost(self, exc: Exception | None) -> None:
        self._unwatch()
        super().connection_lost(exc)

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
