"""The connections that llama.cpp has to workers, seen from outside of it: their traffic, whether the other end still answers, which one ended.

The system counts the bytes of a connection, also when the worker's process is stopped or its machine is off, and acknowledges them even when
the worker's process does not read them.
"""

import contextlib
import os
import socket
import stat
import struct
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from mixcli.system.worker_address import parse_worker

# tcp_info of Linux (include/uapi/linux/tcp.h): tcpi_last_data_sent, tcpi_last_ack_recv, tcpi_bytes_acked with tcpi_bytes_received
_SENT, _BYTES = struct.Struct("=I"), struct.Struct("=QQ")
_SENT_AT, _ACKED_AT, _BYTES_AT = 44, 56, 120
_DESCRIPTORS = (Path("/proc/self/fd"), Path("/dev/fd"))
# an idle connection is asked after 15 s whether its other end is there, and given up 15 s later
_KEEP_ALIVE = {"TCP_KEEPIDLE": 15, "TCP_KEEPALIVE": 15, "TCP_KEEPINTVL": 5, "TCP_KEEPCNT": 3}

Places = Mapping[str, set[tuple[str, int]]]  # the addresses of each endpoint


class Traffic(NamedTuple):
    """Bytes that went over the connections to an endpoint, and milliseconds since the last was sent and since the other machine confirmed one."""

    n_bytes: int
    sent_ago: int
    acked_ago: int


def places_of(endpoints: Sequence[str]) -> Places:
    """Look up the addresses of endpoints; none for a name that cannot be resolved."""
    return {endpoint: _addresses(endpoint) for endpoint in endpoints}


def _addresses(endpoint: str) -> set[tuple[str, int]]:
    host, port = parse_worker(endpoint)
    with contextlib.suppress(OSError, UnicodeError):
        found = socket.getaddrinfo(host, port, socket.AF_INET, socket.SOCK_STREAM)
        return {(str(info[4][0]), port) for info in found}
    return set()


def traffic(places: Places) -> dict[str, Traffic] | None:
    """Return the traffic of each endpoint that has a connection; None where the system does not tell. Idle connections are kept watched."""
    if not hasattr(socket, "TCP_INFO"):
        return None
    found: dict[str, Traffic] = {}
    for endpoint, connection in _connections(places):
        with contextlib.suppress(OSError, struct.error):
            _watch_idle(connection)
            info = connection.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 256)
            (sent,), (acked,) = _SENT.unpack_from(info, _SENT_AT), _SENT.unpack_from(info, _ACKED_AT)
            others = found.get(endpoint, Traffic(0, sent, acked))
            n_bytes = others.n_bytes + sum(_BYTES.unpack_from(info, _BYTES_AT))
            found[endpoint] = Traffic(n_bytes, min(others.sent_ago, sent), min(others.acked_ago, acked))
    return found


def ended(places: Places) -> list[str]:
    """Return the endpoints to which no connection is open any more: the other end closed it, or it was never there."""
    alive = {endpoint for endpoint, connection in _connections(places) if _is_open(connection)}
    return [endpoint for endpoint in places if endpoint not in alive]


def _is_open(connection: socket.socket) -> bool:
    """Look for the end of what comes, without taking anything of it."""
    try:
        return bool(connection.recv(1, socket.MSG_PEEK | socket.MSG_DONTWAIT))
    except BlockingIOError:
        return True
    except OSError:
        return False


def _connections(places: Places) -> Iterator[tuple[str, socket.socket]]:
    """Yield this process's connections with their endpoints, each open while it is looked at."""
    for number in _descriptors():
        with contextlib.suppress(OSError):  # closed meanwhile, or no connection
            if not stat.S_ISSOCK(os.fstat(number).st_mode):
                continue
            with socket.socket(fileno=os.dup(number)) as sock:
                peer = sock.getpeername()[:2]
                endpoint = next((name for name, there in places.items() if peer in there), None)
                if endpoint is not None:
                    yield endpoint, sock


def _descriptors() -> list[int]:
    for folder in _DESCRIPTORS:
        with contextlib.suppress(OSError, ValueError):
            return [int(entry.name) for entry in folder.iterdir()]
    return []


def _watch_idle(connection: socket.socket) -> None:
    """Let the system end a connection whose other machine is gone, which no read would ever see."""
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    for name, value in _KEEP_ALIVE.items():
        if (option := getattr(socket, name, None)) is not None:
            connection.setsockopt(socket.IPPROTO_TCP, option, value)


__all__ = ["Places", "Traffic", "ended", "places_of", "traffic"]
