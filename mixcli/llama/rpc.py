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

from mixcli.errors import MixcliError, NotReachable
from mixcli.llama import ggml
from mixcli.llama.rpc_wire import greeted
from mixcli.system.device_facts import DeviceFacts
from mixcli.system.hardware import memory_free, memory_total
from mixcli.system.worker_address import listening_address, worker_address

START_TIMEOUT = 5.0  # seconds for a worker in this process to listen


def connect(endpoint: str) -> list[DeviceFacts]:
    """Register a worker's devices with llama.cpp and return them; once for an endpoint.

    Raises NotReachable when no worker of this version answers there, MixcliError when this build of llama.cpp has no RPC.
    """
    return _connect(worker_address(endpoint))


@cache  # a model that is loaded beside another one, such as a draft, would wait for the connection that this process has
def _connect(endpoint: str) -> list[DeviceFacts]:
    with greeted(endpoint):
        pass
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
    address, port = listening_address(endpoint)  # llama.cpp takes numbers only
    pointers = ggml.device_pointers("gpu", "igpu")
    if not pointers:
        pointers = ggml.device_pointers("cpu")
        for pointer in pointers:
            ggml.report_memory(pointer, lambda: (memory_free(), memory_total()))
    _serve(f"{address}:{port}", n_threads, pointers)


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
    deadline = time.monotonic() + START_TIMEOUT
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


__all__ = ["connect", "serve", "stand_ins"]


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
