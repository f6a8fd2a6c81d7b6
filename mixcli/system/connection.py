"""One client connection of a host: bound the memory of answers that are not read."""

import asyncio
from typing import Any

from uvicorn.protocols.http.h11_impl import H11Protocol

MIN_BYTES = 1 << 14  # bytes that a client must take in `patience` seconds, or all that is left


class PatientConnection(H11Protocol):
    """uvicorn's, which waits forever for a client that reads no more.

    Nothing is written while the system's buffer is full, so this process holds one piece of an answer at most. A client that takes less
    than MIN_BYTES bytes in `patience` seconds then is disconnected, and the request ends as that of a client that has left.
    """

    patience = 600.0  # seconds: a person may look at the first page of an answer in a pager
    _stall: asyncio.TimerHandle | None = None

    def connection_made(self, transport: Any) -> None:
        super().connection_made(transport)
        transport.set_write_buffer_limits(high=0)

    def pause_writing(self) -> None:
        super().pause_writing()
        self._watch_reader()

    def resume_writing(self) -> None:
        self._unwatch_reader()
        super().resume_writing()

    def connection_lost(self, exc: Exception | None) -> None:
        self._unwatch_reader()
        super().connection_lost(exc)

    def _watch_reader(self) -> None:
        self._unwatch_reader()
        n_bytes = self.transport.get_write_buffer_size()
        self._stall = self.loop.call_later(self.patience, self._look, n_bytes)

    def _unwatch_reader(self) -> None:
        if self._stall is not None:
            self._stall.cancel()
            self._stall = None

    def _look(self, n_before: int) -> None:
        if n_before - self.transport.get_write_buffer_size() < MIN_BYTES:
            self.transport.abort()
        else:
            self._watch_reader()


__all__ = ["PatientConnection"]
