"""Watch the connections to RPC workers: give up on a silent one, since llama.cpp's reads have no timeout, and name one that ended.

A worker serves one client at a time, so it cannot be asked on a second connection whether it is alive. llama.cpp aborts the process when a
worker's connection ends, without naming it; before that it calls back, and the state of the connections tells.
"""

import contextlib
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence

from mixcli.errors import NotReachable
from mixcli.llama import ggml
from mixcli.llama.rpc_wire import silent
from mixcli.llama.worker_connections import Traffic, ended, places_of, traffic

LOAD = 60.0  # seconds without a byte, or a tensor, while a model is loaded
COMPUTE = 600.0  # seconds without a byte in one step: the worker computes, a long prompt on a slow machine at the most
UNREACHABLE = 45.0  # seconds in which not even the system of the worker's machine confirms anything: it is off, or the network is gone
BLIND = 10  # times as long where the system does not count
POLL_INTERVAL = 1.0  # seconds between two looks
# what llama.cpp (ggml-rpc.cpp) aborts with
LOST = ("Remote RPC server crashed", "Failed to connect to", "RPC handshake failed")


class WorkerWatch:
    """Watches the workers while some thread is `waiting` for them; `on_lost` gets the error, once, from another thread.

    Seconds are those in which this process runs: one that was stopped blames no worker.
    """

    def __init__(self, endpoints: Sequence[str], on_lost: Callable[[NotReachable], None]) -> None:
        self._endpoints, self._on_lost = endpoints, on_lost
        self._limits: list[float] = []  # of each thread that waits
        self._starting = threading.Lock()
        self._silent = 0.0
        self._thread: threading.Thread | None = None

    @contextlib.contextmanager
    def waiting(self, seconds: float) -> Iterator[None]:
        """Call `on_lost` when a worker's connection ends, or no worker sends or takes a byte for so long, while the block runs."""
        if not self._endpoints:
            yield
            return
        with self._starting:
            if self._thread is None:
                self._places = places_of(self._endpoints)
                self._thread = threading.Thread(target=self._watch, name="worker watch", daemon=True)
                self._thread.start()
                ggml.on_abort(self._aborts)
        self.alive()
        self._limits.append(seconds)
        try:
            yield
        finally:
            self._limits.remove(seconds)

    def alive(self) -> bool:
        """Note a sign of progress; True, so that the load continues whose callback this is."""
        self._silent = 0.0
        return True

    def _watch(self) -> None:
        before: Mapping[str, Traffic] | None = None
        while True:
            time.sleep(POLL_INTERVAL)
            limit = min(self._limits, default=None)
            if limit is None:
                continue
            self._silent += POLL_INTERVAL
            now = traffic(self._places)
            if now is None:
                limit *= BLIND
            elif not now or _bytes(now) != _bytes(before):  # not connected yet, or alive
                self.alive()
            before = now
            error = self._given_up(now, limit)
            if error is not None and self._limits:
                self._on_lost(error)
                return

    def _given_up(self, now: Mapping[str, Traffic] | None, limit: float) -> NotReachable | None:
        """Return the error of a worker that is silent for too long, None where all are well."""
        if now and self._silent > UNREACHABLE:
            endpoint, last = max(now.items(), key=lambda one: one[1].acked_ago)
            if last.acked_ago > 1000 * UNREACHABLE:
                return NotReachable(
                    f"the machine of the worker {endpoint} has not been reachable for {UNREACHABLE:.0f} s: it is off, or the network "
                    "is down; start `mixcli worker` there again"
                )
        if self._silent > limit:  # the one that was asked last: the others wait too
            asked = min(now, key=lambda one: now[one].sent_ago) if now else self._endpoints[0]
            return silent(asked, limit)
        return None

    def _aborts(self, message: str) -> None:
        """In some thread of llama.cpp, which ends the process when this returns."""
        if not any(words in message for words in LOST):
            sys.stderr.write(f"{message}\n")
            sys.stderr.flush()
            return
        lost = ended(self._places) or list(self._endpoints)
        self._on_lost(
            NotReachable(
                f"the worker at {' or '.join(lost)} closed the connection: it crashed, ran out of memory or was stopped; "
                "restart `mixcli worker` there"
            )
        )
        threading.Event().wait()  # `on_lost` lets the process end, once its clients have the reason


def _bytes(found: Mapping[str, Traffic] | None) -> list[int]:
    return [one.n_bytes for one in (found or {}).values()]


__all__ = ["COMPUTE", "LOAD", "WorkerWatch"]
