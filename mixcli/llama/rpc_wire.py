"""Speak llama.cpp's RPC protocol on a connection of our own: its version before llama.cpp connects, and the speed of the way to a worker.

llama.cpp's own client has no timeouts, ends the process where something is wrong, and does not compare all of the version. Commands and
records are those of ggml-rpc.cpp at protocol version PROTOCOL; a worker with another version is refused before anything else is sent.
"""

import socket
import statistics
import struct
import time
from collections.abc import Callable, Generator, Sequence
from contextlib import contextmanager, suppress
from functools import partial

from mixcli.errors import NotReachable, UsageError
from mixcli.system.device_facts import NetworkPath
from mixcli.system.tcp_connections import user_of
from mixcli.system.worker_address import parse_worker

PROTOCOL = (7, 0, 0)  # RPC_PROTO_*_VERSION of the pinned llama.cpp; the last number counts its operations
CONNECT_TIMEOUT = 5.0  # seconds
HANDSHAKE = 10.0  # seconds for a worker to answer
# rpc_cmd
ALLOC_BUFFER, BUFFER_GET_BASE, SET_TENSOR, GET_TENSOR, HELLO_COMMAND, DEVICE_COUNT = 0, 3, 6, 8, 14, 15
HELLO = bytes([HELLO_COMMAND]) + (24).to_bytes(8, "little") + bytes(24)  # no capabilities
MAX_HELLO = 64  # bytes of the answer: the version first; 28 at this version
LENGTH = struct.Struct("<Q")
# rpc_tensor: id, type, buffer, ne, nb, op, op_params, flags, src, view_src, view_offs, data, name, use_count
TENSOR = struct.Struct("<QIQ4I4II16ii10QQQQ64si")
INT8 = 24  # ggml_type
ROUND_TRIPS = 9
FIRST, LARGEST = 64 << 10, 8 << 20  # bytes of a transfer that is timed
LONG_ENOUGH = 0.03  # seconds of one
MAX_PROBE = 2.0  # seconds after which no larger one is begun
TRIPS_OF_BOTH = 4  # round trips of a transfer there and one back: each asks for the place of the buffer first


@contextmanager
def greeted(endpoint: str) -> Generator["Wire"]:
    """Connect to a worker and compare protocol versions.

    Raises NotReachable where nothing listens, does not answer, is not a worker or has another version of the protocol.
    """
    place = _resolved(endpoint)
    try:
        connection = socket.create_connection(place, CONNECT_TIMEOUT)
    except OSError as error:
        raise NotReachable(
            f"no worker at {endpoint} ({error.strerror or error}); start one there with `mixcli worker`"
        ) from error
    with connection:
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        wire = Wire(connection)
        _greet(wire, endpoint)
        yield wire


def silent(endpoint: str, seconds: float) -> NotReachable:
    """Return the error of a worker from which nothing has come for so long."""
    return NotReachable(
        f"the worker at {endpoint} has not responded for {seconds:.0f} s: it hangs or its machine is down; restart `mixcli worker` there"
    )


def distinct(endpoints: Sequence[str]) -> Sequence[str]:
    """Return the endpoints; UsageError where two are names of the same worker, which would wait for itself."""
    places: dict[tuple[str, int], str] = {}
    for endpoint in endpoints:
        other = places.setdefault(_resolved(endpoint), endpoint)
        if other != endpoint:
            raise UsageError(f"{other} and {endpoint} are the same worker; pass it once")
    return endpoints


def _resolved(endpoint: str) -> tuple[str, int]:
    """Return the IPv4 address and the port of an endpoint; llama.cpp has no IPv6. Raises NotReachable."""
    host, port = parse_worker(endpoint)
    try:
        found = socket.getaddrinfo(host, port, socket.AF_INET, socket.SOCK_STREAM)
    except OSError as error:
        raise NotReachable(
            f"the host name of the worker {endpoint} cannot be resolved ({error.strerror or error}); check it, or use an IPv4 address"
        ) from error
    except UnicodeError as error:
        raise UsageError(f"invalid worker address {endpoint!r}: not a host name") from error
    return str(found[0][4][0]), port


def _greet(wire: "Wire", endpoint: str) -> None:
    """Ask for the protocol's version as llama.cpp will, whose wait for the answer has no end."""
    try:
        there = wire.hello()
    except TimeoutError:
        raise NotReachable(f"the worker at {endpoint} {wire.why_silent()}") from None
    except OSError:
        raise NotReachable(
            f"{endpoint} closed the connection: it is not a worker of this version; run the same version of mixcli there"
        ) from None
    if there is None:
        raise NotReachable(f"{endpoint} is not a mixcli worker; start one there with `mixcli worker`")
    if there != PROTOCOL:
        raise NotReachable(
            f"the worker at {endpoint} has version {_dotted(there)} of llama.cpp's RPC protocol, and this machine {_dotted(PROTOCOL)}; "
            "install the same version of mixcli and llama-cpp-python on both"
        )


def _dotted(version: tuple[int, ...]) -> str:
    return ".".join(map(str, version))


def measured_path(endpoint: str) -> NetworkPath:
    """Measure the round trip to a worker and the rate to and from its memory, in about a tenth of a second and at most some seconds.

    Raises what `greeted` raises. The rate is 0 where it cannot be measured.
    """
    with greeted(endpoint) as wire:
        try:
            trips = [_timed(wire.count_devices) for _ in range(ROUND_TRIPS)]
            round_trip = statistics.median(trips)
            return NetworkPath(round_trip, _rate(wire, round_trip))
        except TimeoutError:
            raise silent(endpoint, HANDSHAKE) from None
        except OSError as error:
            raise NotReachable(
                f"the worker at {endpoint} closed the connection while it was measured ({error}); restart `mixcli worker` there"
            ) from error


def _rate(wire: "Wire", round_trip: float) -> float:
    """Return GB/s of transfers there and back that grow until one takes long enough, so that the connection is as fast as it gets."""
    buffer = wire.alloc(LARGEST)
    if not buffer:
        return 0.0
    n_bytes, begin = FIRST, time.monotonic()
    while True:
        seconds = _timed(partial(wire.write, buffer, n_bytes)) + _timed(partial(wire.read, buffer, n_bytes))
        seconds = max(seconds - TRIPS_OF_BOTH * round_trip, 1e-9)
        if seconds >= LONG_ENOUGH or n_bytes >= LARGEST or time.monotonic() - begin > MAX_PROBE:
            return 2 * n_bytes / seconds / 1e9
        n_bytes *= 2


def _timed(work: Callable[[], object]) -> float:
    begin = time.perf_counter()
    work()
    return time.perf_counter() - begin


class Wire:
    """A connection to a worker that has greeted. Everything raises OSError when it ends, or when an answer is not there whole after HANDSHAKE."""

    def __init__(self, connection: socket.socket) -> None:
        self._connection = connection
        self._deadline = 0.0  # of the present answer; on the clock of time.monotonic

    def hello(self) -> tuple[int, ...] | None:
        """Return the version of the worker's protocol; None where another program answers."""
        self._begin(HELLO)
        (size,) = LENGTH.unpack(self._receive(LENGTH.size))
        if not 3 <= size <= MAX_HELLO:
            return None
        return tuple(self._receive(size)[:3])

    def why_silent(self) -> str:
        """Return in words why a worker that accepts connections does not answer: who uses it, where that is known."""
        user = ""
        with suppress(OSError):  # the connection has ended meanwhile
            user = user_of(self._connection.getpeername(), self._connection.getsockname())
        if user:
            return f"serves another client (a worker serves one at a time): {user}; stop that client, or wait until it has ended"
        return (
            f"accepts connections but did not respond within {HANDSHAKE:.0f} s: it serves another client (a worker serves one at a time), "
            "hangs, or is another program; stop the other client, or restart `mixcli worker` there"
        )

    def count_devices(self) -> int:
        """Return how many devices the worker has: the smallest command that is answered."""
        (n_devices,) = struct.unpack("<I", self._ask(DEVICE_COUNT, b"", 4))
        return int(n_devices)

    def alloc(self, n_bytes: int) -> int:
        """Take memory of the worker's first device until the connection ends; return its handle, 0 where there is none."""
        handle, _ = struct.unpack("<QQ", self._ask(ALLOC_BUFFER, struct.pack("<IQ", 0, n_bytes), 16))
        return int(handle)

    def write(self, buffer: int, n_bytes: int) -> None:
        """Send bytes into a buffer; return when the worker has them."""
        tensor = self._tensor(buffer, n_bytes)
        self._send(SET_TENSOR, tensor + bytes(1 + LENGTH.size) + bytes(n_bytes))
        self.count_devices()

    def read(self, buffer: int, n_bytes: int) -> None:
        """Fetch bytes of a buffer."""
        self._ask(GET_TENSOR, self._tensor(buffer, n_bytes) + struct.pack("<QQ", 0, n_bytes), n_bytes)

    def _tensor(self, buffer: int, n_bytes: int) -> bytes:
        """Describe a row of bytes at the start of a buffer."""
        base = LENGTH.unpack(self._ask(BUFFER_GET_BASE, LENGTH.pack(buffer), LENGTH.size))[0]
        sizes = (n_bytes, 1, 1, 1, 1, n_bytes, n_bytes, n_bytes)
        return TENSOR.pack(1, INT8, buffer, *sizes, 0, *[0] * 16, 0, *[0] * 10, 0, 0, base, b"", 0)

    def _send(self, command: int, content: bytes) -> None:
        self._begin(bytes([command]) + LENGTH.pack(len(content)) + content)

    def _begin(self, request: bytes) -> None:
        """Send a request; it and its answer have HANDSHAKE seconds."""
        self._deadline = time.monotonic() + HANDSHAKE
        self._connection.settimeout(HANDSHAKE)
        self._connection.sendall(request)

    def _ask(self, command: int, content: bytes, n_bytes: int) -> bytes:
        self._send(command, content)
        if (size := LENGTH.unpack(self._receive(LENGTH.size))[0]) != n_bytes:
            raise ConnectionError(f"response of {size} bytes instead of {n_bytes}")
        return self._receive(n_bytes)

    def _receive(self, n_bytes: int) -> bytes:
        found = bytearray()
        while len(found) < n_bytes:
            if (left := self._deadline - time.monotonic()) <= 0:  # also where a byte comes now and then
                raise TimeoutError
            self._connection.settimeout(left)
            part = self._connection.recv(min(1 << 20, n_bytes - len(found)))
            if not part:
                raise ConnectionError("connection ended")
            found += part
        return bytes(found)


__all__ = ["HELLO", "PROTOCOL", "Wire", "distinct", "greeted", "measured_path", "silent"]
