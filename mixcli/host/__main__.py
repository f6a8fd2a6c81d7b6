"""The host process: `python -m mixcli.host SPEC` listens on a unix socket, then loads and serves the model."""

import asyncio
import contextlib
import gc
import os
import signal
import socket
import sys
import traceback
from collections.abc import Generator
from pathlib import Path
from types import FrameType
from typing import NoReturn

from mixcli.errors import MixcliError
from mixcli.host.protocol.host_record import HostRecord
from mixcli.host.protocol.host_spec import HostSpec
from mixcli.host.watchdog import Watchdog
from mixcli.system.os_errors import translated  # now: later there may be no descriptor left to import it

DRAIN = 5  # seconds that running answers may take to end when the host is asked to stop
TOLD = 2  # seconds more to send an error to those that did not end
SAVE = 20  # seconds that the engine may take to write its caches to disk
MARGIN = 10  # seconds more until the watchdog ends what has not ended by then


class SocketGuard:
    """The socket's path in the file system, removed once: a second time it could be the successor's."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._open = True

    def close(self) -> None:
        """Remove the socket, so that new clients start another host."""
        if self._open:
            self._open = False
            with contextlib.suppress(OSError):
                self._path.unlink(missing_ok=True)


def main() -> NoReturn:
    """Serve until the keep-alive expires or SIGTERM, with exit code 0; otherwise the log gives the reason."""
    code = MixcliError.exit_code
    try:
        code = _run(sys.argv[1:])
    except Exception as error:
        if hasattr(error, "exit_code"):
            sys.stderr.write(f"{error}\n")
        elif refusal := translated(error):
            sys.stderr.write(f"{refusal}\n")
        else:
            traceback.print_exc()
    finally:
        with contextlib.suppress(OSError, ValueError):
            sys.stderr.flush()
        os._exit(code)  # an engine that is inside llama.cpp would make Python's own way out crash


def _run(arguments: list[str]) -> int:
    spec = _spec(arguments)
    path = spec.name.socket
    record = HostRecord.mine(path, spec.name.label, spec.name.path)
    door = SocketGuard(path)
    try:
        os.chdir(path.parent)  # keeps no other folder busy
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as listener:
            _bind(listener, path)
            record.write()
            asyncio.run(_serve(spec, listener, door))
    finally:
        door.close()
        record.remove()
    return 0


def _spec(arguments: list[str]) -> HostSpec:
    try:
        return HostSpec.from_json(arguments[0])
    except (IndexError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise MixcliError(
            f"invalid start-up data for the model process: {type(error).__name__}: {error}"
        ) from error


def _bind(listener: socket.socket, path: Path) -> None:
    try:
        listener.bind(os.fspath(path))
        listener.listen(128)
    except OSError as error:
        n_bytes = len(os.fsencode(path))
        raise MixcliError(
            f"cannot listen on {path} ({n_bytes} bytes): {error.strerror or error}; set MIXCLI_HOME to another folder"
        ) from error


async def _serve(spec: HostSpec, listener: socket.socket, door: SocketGuard) -> None:
    gc.disable()  # nothing of what is imported is ever garbage; to look for it takes a tenth of the time
    import uvicorn

    from mixcli.host.api.app import create_app
    from mixcli.host.state import HostState
    from mixcli.system.connection import PatientConnection

    gc.freeze()
    gc.enable()
    state = HostState(spec)
    watchdog = Watchdog(max(spec.order.placement.n_threads, spec.order.placement.n_threads_batch))

    def close() -> None:
        """Shut down in this order: no new clients, the followers of the state leave, running answers end."""
        door.close()
        state.close()
        asyncio.get_running_loop().call_later(DRAIN, state.engine.end_requests)
        watchdog.end_within(DRAIN + SAVE + MARGIN)
        server.should_exit = True

    class Server(uvicorn.Server):
        """A server that drains at the first signal and exits at once at the second."""

        @contextlib.contextmanager
        def capture_signals(self) -> Generator[None, None, None]:
            for number in (signal.SIGTERM, signal.SIGINT):
                signal.signal(number, self.handle_exit)
            yield  # they stay: what comes after the drain can be cut short too

        def handle_exit(self, sig: int, frame: FrameType | None) -> None:  # noqa: ARG002  # uvicorn's names
            for number in (signal.SIGTERM, signal.SIGINT):
                signal.signal(number, signal.SIG_DFL)  # the kernel needs no Python that has time for it
            close()

    server = Server(
        uvicorn.Config(
            create_app(state),
            log_level="warning",
            access_log=False,
            lifespan="off",
            timeout_graceful_shutdown=DRAIN + TOLD,
            server_header=False,
            proxy_headers=False,
            http=PatientConnection,
        )
    )

    async def leave() -> None:
        await state.wait_until_unwanted()
        close()

    state.engine.start()
    watchdog.start()
    tasks = [asyncio.create_task(leave()), asyncio.create_task(watchdog.beat())]
    await server.serve(sockets=[listener])
    tasks[0].cancel()
    state.engine.close(timeout=SAVE)


if __name__ == "__main__":
    main()
