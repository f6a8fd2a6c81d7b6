"""The host process: `python -m mixcli.host SPEC` listens on its unix socket first, then loads the model and serves it."""

import asyncio
import os
import signal
import socket
import sys
from pathlib import Path
from types import FrameType

from mixcli.host.spec import HostSpec

DRAIN = 5  # seconds that running answers may take to end when the host is told to stop
SAVE = 20  # seconds that the engine may take to write to disk what shall stay


class Door:
    """The socket's path in the file system, taken away once: a second time it could be the successor's."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._open = True

    def close(self) -> None:
        """Let whoever comes from now on start a host of their own."""
        if self._open:
            self._open = False
            self._path.unlink(missing_ok=True)


def main() -> None:
    """Serve until nobody wants the model any more, or SIGTERM."""
    spec = HostSpec.from_json(sys.argv[1])
    path = spec.name.socket
    os.chdir(path.parent)  # keeps no other folder busy
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    listener.bind(os.fspath(path))
    listener.listen(128)
    door = Door(path)
    try:
        asyncio.run(_serve(spec, listener, door))
    finally:
        door.close()
        sys.stderr.flush()
        os._exit(0)  # an engine that is inside llama.cpp would make Python's own way out crash


async def _serve(spec: HostSpec, listener: socket.socket, door: Door) -> None:
    import uvicorn

    from mixcli.host.app import State, create_app

    state = State(spec)

    class Server(uvicorn.Server):
        """Goes in this order: no new guests, the followers of the state leave, running answers end."""

        def handle_exit(self, sig: int, frame: FrameType | None) -> None:
            door.close()
            super().handle_exit(sig, frame)

        async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
            await state.close()
            await super().shutdown(sockets)

    server = Server(
        uvicorn.Config(
            create_app(state),
            log_level="warning",
            lifespan="off",
            timeout_graceful_shutdown=DRAIN,
            server_header=False,
        )
    )

    async def leave() -> None:
        await state.wait_until_unwanted()
        door.close()
        server.should_exit = True

    for number in (signal.SIGTERM, signal.SIGINT):
        # uvicorn puts its own on top and gives the signal back afterwards
        signal.signal(number, lambda *_: None)
    state.engine.start()
    leaving = asyncio.create_task(leave())
    await server.serve(sockets=[listener])
    leaving.cancel()
    state.engine.close(timeout=SAVE)


if __name__ == "__main__":
    main()
