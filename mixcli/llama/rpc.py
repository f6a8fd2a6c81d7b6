"""Use the memory of other machines through llama.cpp's RPC backend: client and server.

Its protocol has neither encryption nor a password, and a worker trusts every client; use it on loopback or in a trusted network only.
"""

import ctypes
import os
import socket
import sys
import threading
import time
from collections.abc import Sequence
from functools import cache

from mixcli.errors import MixcliError, NotReachable, UsageError
from mixcli.llama import ggml
from mixcli.system.device_facts import DeviceFacts

CONNECT_TIMEOUT = 5.0  # seconds
HANDSHAKE = 10.0  # seconds for a worker to send its protocol version
HELLO = (
    bytes([14]) + (24).to_bytes(8, "little") + bytes(24)
)  # RPC_CMD_HELLO, a length, no capabilities (ggml-rpc.cpp)


def parse_endpoint(text: str, default_host: str = "127.0.0.1") -> tuple[str, int]:
    """Parse HOST:PORT, :PORT or PORT; UsageError if it is invalid."""
    host, _, port = text.rpartition(":")
    valid = port.isascii() and port.isdigit() and len(port) <= 5 and 0 < int(port) < 1 << 16
    if not valid or any(not character.isprintable() or character in " /?#@" for character in host):
        raise UsageError(f"{text!r} is not a valid address; use HOST:PORT, such as 127.0.0.1:50052")
    return host.strip("[]") or default_host, int(port)


def connect(endpoint: str) -> list[DeviceFacts]:
    """Register a worker's devices with llama.cpp and give them; once for an endpoint.

    Raises NotReachable when nothing listens there, MixcliError when this build of llama.cpp has no RPC.
    """
    host, port = parse_endpoint(endpoint)
    try:
        with socket.create_connection((host, port), CONNECT_TIMEOUT) as connection:
            _greet(connection, endpoint)
    except UnicodeError as error:  # a label that is too long, or empty
        raise UsageError(
            f"{endpoint!r} is not a valid address; use HOST:PORT, such as 127.0.0.1:50052"
        ) from error
    except OSError as error:
        raise NotReachable(
            f"no worker at {endpoint} ({error.strerror or error}); start one there with `mixcli worker`"
        ) from error
    return _register(f"{host}:{port}")


def _greet(connection: socket.socket, endpoint: str) -> None:
    """Ask for the protocol's version as llama.cpp will: its own wait for the answer has no end. Raises NotReachable."""
    connection.settimeout(HANDSHAKE)
    try:
        connection.sendall(HELLO)
        said = connection.recv(64)
    except TimeoutError:
        raise NotReachable(
            f"the worker at {endpoint} accepts connections but did not respond within {HANDSHAKE:.0f} s: it hangs, serves another "
            "machine, or is another program; restart `mixcli worker` there"
        ) from None
    except ConnectionError:
        said = b""
    if not said:
        raise NotReachable(
            f"{endpoint} closed the connection: it is not a worker of this version; run the same version of mixcli there"
        )
    size = int.from_bytes(said[:8], "little")
    if len(said) < 8 or not 3 <= size <= 64:
        raise NotReachable(f"{endpoint} is not a mixcli worker; start one there with `mixcli worker`")


@cache
def _register(endpoint: str) -> list[DeviceFacts]:
    before = len(ggml.devices())
    lib = _library()
    registry = lib.ggml_backend_rpc_add_server(endpoint.encode())
    if not registry:
        raise MixcliError(
            f"llama.cpp does not accept the worker at {endpoint}; run the same version of mixcli there"
        )
    ggml.register(registry)
    return ggml.devices()[before:]


def serve(endpoint: str, n_threads: int) -> None:
    """Lend this machine's GPUs, or its CPU and memory where there are none, at HOST:PORT; returns when the server ends.

    Nothing is kept on disk. Raises MixcliError when the address is taken or this build of llama.cpp has no RPC.
    """
    host, port = parse_endpoint(endpoint)
    try:
        with socket.create_server((host, port)):
            pass
    except OSError as error:
        raise MixcliError(f"cannot listen on {host}:{port}: {os.strerror(error.errno or 0)}") from error
    _serve(f"{host}:{port}", n_threads, ggml.device_pointers("gpu", "igpu") or ggml.device_pointers("cpu"))


def _serve(endpoint: str, n_threads: int, pointers: Sequence[int]) -> None:
    devices = (ctypes.c_void_p * len(pointers))(*pointers)
    _library().ggml_backend_rpc_start_server(endpoint.encode(), None, n_threads, len(pointers), devices)


def stand_ins(n_devices: int) -> list[DeviceFacts]:
    """Register so many devices that are this CPU, which llama.cpp takes for GPUs: to lay out a model for a machine that is not here.

    They serve on loopback as long as this process lives. Raises what `connect` raises.
    """
    _library()
    with socket.create_server(("127.0.0.1", 0)) as probe:
        endpoint = f"127.0.0.1:{probe.getsockname()[1]}"
    pointers = ggml.device_pointers("cpu")[:1] * n_devices
    threading.Thread(target=_serve, args=(endpoint, 1, pointers), daemon=True).start()
    deadline = time.monotonic() + CONNECT_TIMEOUT
    while True:
        try:
            return connect(endpoint)
        except NotReachable:
            if time.monotonic() > deadline:
                raise
            time.sleep(0.002)


@cache
def _library() -> ctypes.CDLL:
    try:
        lib = ggml.load("ggml-rpc")
    except MixcliError as error:
        raise MixcliError(
            "this build of llama.cpp has no RPC support; build llama-cpp-python with CMAKE_ARGS=-DGGML_RPC=ON"
        ) from error
    lib.ggml_backend_rpc_add_server.restype = ctypes.c_void_p
    lib.ggml_backend_rpc_add_server.argtypes = [ctypes.c_char_p]
    lib.ggml_backend_rpc_start_server.restype = None
    lib.ggml_backend_rpc_start_server.argtypes = [
        ctypes.c_char_p,
        ctypes.c_char_p,
        ctypes.c_size_t,
        ctypes.c_size_t,
        ctypes.POINTER(ctypes.c_void_p),
    ]
    return lib


__all__ = ["connect", "parse_endpoint", "serve", "stand_ins"]


def _leave_with_the_parent() -> None:
    """Exit when stdin closes, which means that the parent process ended."""
    os.read(0, 1)
    os._exit(0)


if __name__ == "__main__":
    threading.Thread(target=_leave_with_the_parent, daemon=True).start()
    try:
        serve(sys.argv[1], int(sys.argv[2]))
    except MixcliError as failed:
        sys.exit(str(failed))
