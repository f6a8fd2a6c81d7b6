"""Compute for a client beside the engine: embeddings, log-probabilities of prompts, experts. It ends when the client leaves, as answers do."""

import asyncio
import threading
from collections.abc import Callable
from typing import Any, TypeVar

from fastapi import Request
from starlette.requests import ClientDisconnect

from mixcli.engine.faults import IsOver
from mixcli.host.api.answering import disconnected
from mixcli.host.preparation import Preparation
from mixcli.host.state import HostState

T = TypeVar("T")


async def computed_beside(state: HostState, http: Request, work: Callable[[Preparation, IsOver], T]) -> T:
    """Return what `work` computes, which looks now and then whether it is over; raise ClientDisconnect where the client leaves before."""
    left = threading.Event()
    with state.keep_alive.client():
        computing = state.engine.compute_beside(lambda model: work(model, left.is_set))
        result = asyncio.wrap_future(computing)
        leaving = asyncio.create_task(disconnected(http))
        try:
            ends: list[asyncio.Future[Any]] = [result, leaving]
            await asyncio.wait(ends, return_when=asyncio.FIRST_COMPLETED)
            if not result.done():
                raise ClientDisconnect
            return result.result()
        finally:
            left.set()
            leaving.cancel()
            result.cancel()  # what has not begun never does
