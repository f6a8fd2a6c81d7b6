"""Start and stop the server: bind the port, serve, drain."""

import asyncio
import contextlib
import errno
import ipaddress
import os
import signal
import socket
from collections.abc import Callable, Generator
from pathlib import Path
from types import FrameType

from mixcli.errors import InUse, MixcliError, UsageError
from mixcli.serve.gate import Gate
from mixcli.system.formatting import counted

DRAIN = 30  # seconds that running answers may take to end when the server is asked to stop
MIN_KEY = 16  # characters


def bound(address: str, port: int) -> socket.socket:
    """Bind the port before anything is loaded; 0 picks a free one. MixcliError says why it cannot be bound."""
    try:
        family, kind, protocol, _, place = socket.getaddrinfo(
            address, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
        listener = socket.socket(family, kind, protocol)
    except OSError as error:
        raise UsageError(f"{address} is not an address of this machine ({error.strerror})") from error
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind(place)
        listener.listen(128)
    except OSError as error:
        listener.close()
        if error.errno == errno.EADDRINUSE:
            raise InUse(f"port {port} is in use on {address}; pass another with --port") from error
        raise MixcliError(f"cannot listen on port {port} of {address}: {error.strerror}") from error
    return listener


def key_for(address: str, variable: str, *, is_named: bool = False) -> str | None:
    """Return the API key for clients from the environment variable; None if no key is required.

    A variable that the user named (`is_named`) must hold a key at any address. UsageError where there is none and there must be one.
    """
    key = os.environ.get(variable, "").strip()
    local = is_loopback(address)
    if not key and local and not is_named:
        return None
    if len(key) < MIN_KEY:
        why = "" if local else f"{address} is not a loopback address, so an API key is required: "
        have = (
            f"has {counted(len(key), 'character')}, but a key needs at least {MIN_KEY}"
            if key
            else "is not set or empty"
        )
        raise UsageError(f"{why}{variable} {have}; export {variable}=$(openssl rand -hex 24)")
    return key


def is_loopback(address: str) -> bool:
    """Return whether only this machine can reach an address."""
    try:
        return address == "localhost" or ipaddress.ip_address(address).is_loopback
    except ValueError:
        return False


def serve(listener: socket.socket, gate: Gate, host_socket: Path, revive: Callable[[], Path]) -> None:
    """Serve until SIGTERM or Ctrl-C; running answers get DRAIN seconds to end."""
    asyncio.run(_serve(listener, gate, host_socket, revive))


async def _serve(listener: socket.socket, gate: Gate, host_socket: Path, revive: Callable[[], Path]) -> None:
    import uvicorn

    from mixcli.serve.connection import GateConnection
    from mixcli.serve.proxy import Proxy

    class Server(uvicorn.Server):
        """A server that the first signal drains and the second ends at once."""

        @contextlib.contextmanager
        def capture_signals(self) -> Generator[None, None, None]:
            for number in (signal.SIGTERM, signal.SIGINT):
                signal.signal(number, self.handle_exit)
            yield

        def handle_exit(self, sig: int, frame: FrameType | None) -> None:  # noqa: ARG002  # uvicorn's names
            for number in (signal.SIGTERM, signal.SIGINT):
                signal.signal(number, signal.SIG_DFL)
            self.should_exit = True

    proxy = Proxy(gate, host_socket, revive)
    config = uvicorn.Config(
        proxy,
        log_level="error",
        lifespan="off",
        timeout_graceful_shutdown=DRAIN,
        server_header=False,
        proxy_headers=False,
        http=GateConnection,
        h11_max_incomplete_event_size=1 << 16,
    )
    await Server(config).serve(sockets=[listener])
    await proxy.close()
