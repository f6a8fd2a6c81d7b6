"""What becomes of a pool where clients leave in the middle of an unload, and where a process does not end."""

import asyncio
import threading
from collections.abc import Callable

import pytest

from mixcli.serve.model_lifecycle import ModelLifecycle
from mixcli.serve.model_pool import ModelPool
from mixcli.serve.model_state import State, Unavailable
from tests.mixcli.serve.test_model_pool import Shelf, run, say_nothing, until
from tests.support.waiting import LIMIT

__all__ = ["run"]


def test_a_client_that_leaves_while_a_crashed_model_is_unloaded_blocks_no_load(
    run: Callable[..., Shelf],
) -> None:
    async def body(pool: ModelPool, lifecycle: ModelLifecycle, shelf: Shelf) -> None:
        async with pool.lease("a", say_nothing) as client:
            pass
        shelf.dead.add("a")
        shelf.unloads_held_back = threading.Event()
        losing = asyncio.create_task(pool.lost("a", client))
        await until(lambda: lifecycle.slots["a"].state is State.UNLOADING)
        losing.cancel()
        with pytest.raises(asyncio.CancelledError):
            await losing
        shelf.unloads_held_back.set()
        for label in ("b", "a"):
            async with asyncio.timeout(LIMIT), pool.lease(label, say_nothing):
                pass

    assert run(body).loads == ["a", "b", "a"]


def test_a_load_that_fails_is_told_also_where_its_process_does_not_end(run: Callable[..., Shelf]) -> None:
    async def body(pool: ModelPool, lifecycle: ModelLifecycle, shelf: Shelf) -> None:
        shelf.stays.add("a")
        (shelf.folder / "a").unlink()  # the host does not answer
        with pytest.raises(Unavailable, match="a cannot be loaded"):
            async with asyncio.timeout(LIMIT), pool.lease("a", say_nothing):
                pass
        assert lifecycle.slots["a"].state is State.UNLOADED
        assert shelf.notes[0] == "a cannot be unloaded: the process 7 did not end after SIGKILL"

    run(body)
