"""Serve a port in a thread of its own, so that it answers from the first moment, and drain it at the end."""

import contextlib
import os
import queue
import signal
import socket
import threading
from collections.abc import Generator
from types import FrameType

import uvicorn
import uvloop

from mixcli.errors import MixcliError
from mixcli.serve.addresses import is_loopback
from mixcli.serve.connection import GateConnection, max_connections
from mixcli.serve.gate import Gate
from mixcli.serve.keys import check_key
from mixcli.serve.limits import Limits
from mixcli.serve.proxy import Models, Proxy
from mixcli.system import signals

DRAIN = 30  # seconds that running answers may take to end when the server is asked to stop
SIGNAL_INTERVAL = 1.0  # seconds between two looks for a signal


def key_for(address: str, variable: str, *, is_named: bool = False, has_others: bool = False) -> str | None:
    """Return the API key for clients from the environment variable, and take it from there; None if no key is required.

    A variable that the user named (`is_named`) must hold a key at any address. `has_others` says that there are keys in a file. UsageError
    where there is none and there must be one.
    """
    key = os.environ.pop(variable, "").strip()
    local = is_loopback(address)
    if not key and (local or has_others) and not is_named:
        return None
    why = "" if local else f"{address} is not a loopback address, so an API key is required: "
    return check_key(key, f"{why}{variable}", f"; export {variable}=$(openssl rand -hex 24)")


class _Uvicorn(uvicorn.Server):
    """uvicorn's server; signals are the main thread's, and are handled in `PortServer.wait`."""

    @contextlib.contextmanager
    def capture_signals(self) -> Generator[None, None, None]:
        yield


class PortServer:
    """The server of a port: what `gate` and `limits` let in is answered by `models`."""

    def __init__(self, listener: socket.socket, gate: Gate, limits: Limits, models: Models) -> None:
        self._listener, self._models = listener, models
        n = max_connections(GateConnection.max_connections)
        config = uvicorn.Config(
            Proxy(gate, limits, models),
            log_level="critical",
            access_log=False,
            lifespan="off",
            timeout_graceful_shutdown=DRAIN,
            server_header=False,
            proxy_headers=False,
            http=type("Connection", (GateConnection,), {"max_connections": n}),
            ws="none",
            h11_max_incomplete_event_size=1 << 16,
        )
        self._server = _Uvicorn(config)
        self._thread = threading.Thread(target=self._main, name="port", daemon=True)
        self._is_up: queue.SimpleQueue[None] = queue.SimpleQueue()
        self._fault: BaseException | None = None

    @contextlib.contextmanager
    def running(self) -> Generator[None]:
        """Serve until the end of the block, or of the start where that is interrupted; what is running then is cut off."""
        try:
            self._thread.start()
            self._is_up.get()
            yield
        finally:
            self._server.should_exit = self._server.force_exit = True
            if self._thread.is_alive():
                self._thread.join()

    def wait(self) -> None:
        """Return when SIGTERM or Ctrl-C has ended the server: the first drains it for DRAIN seconds, the second ends the process."""

        def drain(_number: int, _frame: FrameType | None) -> None:
            signals.let_go()
            self._server.should_exit = True

        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, drain)
        while (
            self._thread.is_alive()
        ):  # the system may deliver a signal to another thread, which does not wake this one
            self._thread.join(SIGNAL_INTERVAL)
        if self._fault is not None:
            raise MixcliError(f"the server ended: {self._fault}") from self._fault

    def _main(self) -> None:
        try:
            uvloop.run(self._serve())
        except BaseException as error:
            self._fault = error
        finally:
            self._is_up.put(None)

    async def _serve(self) -> None:
        await self._models.open()
        self._is_up.put(None)
        await self._server.serve(sockets=[self._listener])
        await self._models.close()
