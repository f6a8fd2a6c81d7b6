"""The host process: `python -m mixcli.host SPEC` listens on its unix socket first, then loads the model and serves it."""

import asyncio
import os
import signal
import socket
import sys

from mixcli.host.spec import HostSpec

DRAIN = 5  # seconds that running answers may take to end when the host is told to stop


def main() -> None:
    """Serve until nobody wants the model any more, or SIGTERM."""
    spec = HostSpec.from_json(sys.argv[1])
    path = spec.name.socket
    os.chdir(path.parent)  # keeps no other folder busy
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    listener.bind(os.fspath(path))
    listener.listen(128)
    try:
        asyncio.run(_serve(spec, listener))
    finally:
        path.unlink(missing_ok=True)
        sys.stderr.flush()
        os._exit(0)  # an engine that is inside llama.cpp would make Python's own way out crash


async def _serve(spec: HostSpec, listener: socket.socket) -> None:
    import uvicorn

    from mixcli.host.app import State, create_app

    state = State(spec)
    server = uvicorn.Server(
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
        spec.name.socket.unlink(missing_ok=True)  # whoever comes now starts a host of their own
        server.should_exit = True

    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(
            number, lambda *_: None
        )  # uvicorn puts its own on top and gives the signal back afterwards
    state.engine.start()
    leaving = asyncio.create_task(leave())
    serving = asyncio.create_task(server.serve(sockets=[listener]))
    while not serving.done() and not server.should_exit:
        await asyncio.sleep(0.05)
    await state.close()
    await serving
    leaving.cancel()
    state.engine.close(timeout=DRAIN)


if __name__ == "__main__":
    main()
