"""Watch the connections to RPC workers and give up on a silent one, since llama.cpp's reads have no timeout.

A worker serves one client at a time, so it cannot be asked on a second connection whether it is alive. What can be seen is the traffic of the
connections that llama.cpp has: the system counts their bytes, also of a process that is stopped, a machine that is off, a network that is gone.
"""

import contextlib
import os
import socket
import stat
import struct
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from mixcli.errors import NotReachable
from mixcli.llama.rpc import parse_endpoint

LOAD = 60.0  # seconds without a byte, or a tensor, while a model is loaded
COMPUTE = 600.0  # seconds without a byte in one step: the worker computes, a long prompt on a slow machine at the most
BLIND = 10  # times as long where the system does not count
POLL_INTERVAL = 1.0  # seconds between two looks
# tcp_info of Linux (include/uapi/linux/tcp.h): tcpi_last_data_sent, tcpi_bytes_acked, tcpi_bytes_received
_SENT, _BYTES = struct.Struct("=I"), struct.Struct("=QQ")
_SENT_AT, _BYTES_AT = 44, 120

Traffic = dict[str, tuple[int, int]]  # bytes by endpoint, and milliseconds since the last one was sent


class WorkerWatch:
    """Watches the workers while some thread is `waiting` for them; `on_silent` gets the error, once, from a thread of its own.

    Seconds are those in which this process runs: one that was stopped blames no worker.
    """

    def __init__(self, endpoints: Sequence[str], on_silent: Callable[[NotReachable], None]) -> None:
        self._endpoints, self._on_silent = endpoints, on_silent
        self._limits: list[float] = []  # of each thread that waits
        self._starting = threading.Lock()
        self._silent = 0.0
        self._thread: threading.Thread | None = None

    @contextlib.contextmanager
    def waiting(self, seconds: float) -> Iterator[None]:
        """Call `on_silent` when no worker sends or takes a byte for so long while the block runs."""
        if not self._endpoints:
            yield
            return
        with self._starting:
            if self._thread is None:
                self._thread = threading.Thread(target=self._watch, name="worker watch", daemon=True)
                self._thread.start()
        self.alive()
        self._limits.append(seconds)
        try:
            yield
        finally:
            self._limits.remove(seconds)

    def alive(self) -> bool:
        """Note a sign of progress; True, so that a load goes on whose callback this is."""
        self._silent = 0.0
        return True

    def _watch(self) -> None:
        places = {endpoint: _addresses(endpoint) for endpoint in self._endpoints}
        before: Traffic | None = None
        while True:
            time.sleep(POLL_INTERVAL)
            limit = min(self._limits, default=None)
            if limit is None:
                continue
            self._silent += POLL_INTERVAL
            now = _traffic(places)
            if now is None:
                limit *= BLIND
            elif not now or _bytes(now) != _bytes(before):  # not connected yet, or alive
                self.alive()
            before = now
            if self._silent > limit and self._limits:
                self._on_silent(_silent_worker(now or dict.fromkeys(self._endpoints, (0, 0)), limit))
                return


def _bytes(traffic: Traffic | None) -> list[int]:
    return [n_bytes for n_bytes, _ in (traffic or {}).values()]


def _silent_worker(traffic: Traffic, seconds: float) -> NotReachable:
    """Blame the one that was asked last: the others wait too."""
    endpoint = min(traffic, key=lambda one: traffic[one][1])
    return NotReachable(
        f"the worker at {endpoint} has not responded for {seconds:.0f} s: it hangs or its machine is down; restart `mixcli worker` there"
    )


def _addresses(endpoint: str) -> set[tuple[str, int]]:
    host, port = parse_endpoint(endpoint)
    with contextlib.suppress(OSError, UnicodeError):
        return {(str(info[4][0]), port) for info in socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)}
    return set()


def _traffic(places: dict[str, set[tuple[str, int]]]) -> Traffic | None:
    """Return what has gone over this process's connections to each endpoint; None where the system does not tell."""
    if not hasattr(socket, "TCP_INFO"):
        return None
    try:
        numbers = [int(entry.name) for entry in Path("/proc/self/fd").iterdir()]
    except OSError:
        return None
    found: Traffic = {}
    for number in numbers:
        with contextlib.suppress(OSError, struct.error):  # closed meanwhile, or no connection
            if not stat.S_ISSOCK(os.fstat(number).st_mode):
                continue
            with socket.socket(fileno=os.dup(number)) as sock:
                peer = sock.getpeername()[:2]
                endpoint = next((name for name, places_ in places.items() if peer in places_), None)
                if endpoint is None:
                    continue
                info = sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 256)
            (sent,) = _SENT.unpack_from(info, _SENT_AT)
            n_bytes = sum(_BYTES.unpack_from(info, _BYTES_AT))
            others, last = found.get(endpoint, (0, sent))
            found[endpoint] = n_bytes + others, min(last, sent)
    return found


__all__ = ["COMPUTE", "LOAD", "WorkerWatch"]
