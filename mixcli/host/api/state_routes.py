"""Routes that need no model: the state of the host, and the stream that holds the model."""

import math
import time
from collections.abc import AsyncGenerator

from fastapi import FastAPI
from fastapi.responses import JSONResponse, StreamingResponse

from mixcli.errors import BadRequest
from mixcli.host.api.events import ALIVE, BEAT, DONE, event_bytes, event_stream
from mixcli.host.protocol.paths import ATTACH, FAILED, HEALTH, LOADING
from mixcli.host.state import HostState


def add_routes(app: FastAPI, state: HostState) -> None:
    """Add the routes to the app."""

    @app.get(HEALTH)
    async def health() -> JSONResponse:
        """Report the state of the load, and the queue."""
        return JSONResponse(state.health().to_json())

    @app.get(ATTACH, include_in_schema=False)
    async def attach(keep_alive: float) -> StreamingResponse:
        state.check_open()
        if math.isnan(keep_alive):
            raise BadRequest("keep_alive is not a number of seconds", param="keep_alive")
        return event_stream(_statuses(state, keep_alive))


async def _statuses(state: HostState, keep_alive: float) -> AsyncGenerator[bytes, None]:
    with state.keep_alive.client(keep_alive):
        last, spoke = None, time.monotonic()
        while not state.closing.is_set():
            now = state.load_status()
            if now.status == FAILED:
                yield event_bytes([now.to_json()]) + DONE
                return
            if now != last:
                yield event_bytes([now.to_json()])
                last, spoke = now, time.monotonic()
            elif now.status == LOADING and time.monotonic() - spoke >= BEAT:
                yield ALIVE  # the client reads no further, it only holds the stream open
                spoke = time.monotonic()
            await state.change()
    yield DONE
