"""Requests to several processes at once, each in a thread of its own: one that hangs delays no other, nor the end of this program."""

import threading
import time
from collections.abc import Callable, Mapping
from typing import Generic, NamedTuple, TypeVar

T = TypeVar("T")
UNRESPONSIVE = "unresponsive"
PENDING = "pending"  # of one that has not replied yet, and is not late


class PollReply(NamedTuple, Generic[T]):
    """The newest reply, None where there is none yet; and the seconds since the request that has none was sent, 0 where each has one."""

    value: T | None
    overdue: float


class Poller(Generic[T]):
    """Requests by key, of which each key has one pending at a time."""

    def __init__(self) -> None:
        self._pending: dict[str, _Request[T]] = {}
        self._replies: dict[str, T | None] = {}

    def send(self, requests: Mapping[str, Callable[[], T]]) -> None:
        """Send the requests of all keys that have none pending; forget keys that are not among them."""
        for known in (self._pending, self._replies):
            for key in known.keys() - requests.keys():
                del known[key]
        for key, request in requests.items():
            if key not in self._pending:
                self._pending[key] = _Request(request)

    def replies(self, seconds: float) -> dict[str, PollReply[T]]:
        """Wait for the replies to the newest requests, at most so many seconds, and return what is known of each key.

        A request that an earlier call has waited for is not waited for again. Raises what a request raised.
        """
        deadline = time.monotonic() + seconds
        overdue: dict[str, float] = {}
        for key, request in list(self._pending.items()):
            if request.is_new:
                request.is_new = False
                request.done.wait(max(0.0, deadline - time.monotonic()))
            if request.done.is_set():
                del self._pending[key]
                self._replies[key] = request.reply()
            else:
                overdue[key] = time.monotonic() - request.began
        keys = self._replies.keys() | self._pending.keys()
        return {key: PollReply(self._replies.get(key), overdue.get(key, 0.0)) for key in sorted(keys)}


class Watch(Generic[T]):
    """Polls others again and again; one that does not reply for `patience` seconds is UNRESPONSIVE."""

    def __init__(self, patience: float) -> None:
        self._patience = patience
        self._poller: Poller[T | None] = Poller()

    def _is_late(self, reply: PollReply[T | None]) -> bool:
        """Return whether a request has been pending for so long that the last reply does not count any more."""
        return reply.overdue >= self._patience

    def _status(self, reply: PollReply[T | None]) -> str:
        """Return the status of one without a reply that counts."""
        return PENDING if reply.overdue and not self._is_late(reply) else UNRESPONSIVE


class _Request(Generic[T]):
    """One request, sent in a thread that the end of the program does not wait for."""

    def __init__(self, request: Callable[[], T]) -> None:
        self.began = time.monotonic()
        self.is_new = True
        self.done = threading.Event()
        self._request = request
        self._error: Exception | None = None
        threading.Thread(target=self._run, name="poller", daemon=True).start()

    def reply(self) -> T:
        """Return the reply, or raise why there is none; called when it is done."""
        if self._error is not None:
            raise self._error
        return self._reply

    def _run(self) -> None:
        try:
            self._reply = self._request()
        except Exception as error:
            self._error = error
        self.done.set()


__all__ = ["PENDING", "UNRESPONSIVE", "PollReply", "Poller", "Watch"]
