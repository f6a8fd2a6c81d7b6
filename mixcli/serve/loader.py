"""What a pool of models needs of the rooms that plan and load: an interface, and how what blocks runs beside the event loop."""

import asyncio
import contextlib
import threading
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Protocol, TypeVar

from mixcli.serve.eviction import Ledger
from mixcli.serve.model_names import ServedModel

T = TypeVar("T")


class RunningHost(Protocol):
    """A host that holds a loaded model for the port."""

    @property
    def socket(self) -> Path:
        """Return where it listens."""


@dataclass(frozen=True)
class Planned:
    """The plan of a load: what it takes, and whether it is as good as with the whole machine. `order` is the loader's own."""

    needs: Ledger
    is_whole: bool
    order: object


class Loader(Protocol):
    """Plans, loads and unloads models; every method but `cause` and `note` blocks, and may be called in several threads."""

    def plan(self, model: ServedModel, left: Ledger) -> Planned:
        """Plan a model for what is left of the memory; raises an error with the reason where it does not fit."""

    def load(self, model: ServedModel, planned: Planned, report: Callable[[float], None]) -> RunningHost:
        """Load a model; `report` gets how far it is, from 0 to 1."""

    def unload(self, host: RunningHost, *, anyway: bool = False) -> bool:
        """End a host and wait until its memory is free; False, and nothing is done, where another program uses it, unless `anyway`."""

    def answers(self, host: RunningHost) -> bool:
        """Return whether a host takes requests."""

    def cause(self, host: RunningHost) -> str:
        """Return why a host ended, where it knew that itself; else nothing. Does not block."""

    def note(self, text: str) -> None:
        """Print a note for the person at the terminal."""


async def in_thread(work: Callable[[], T]) -> T:
    """Run what blocks in a thread of its own, which does not keep the process from ending."""
    loop = asyncio.get_running_loop()
    future: asyncio.Future[T] = loop.create_future()

    def deliver(settle: Callable[[], None]) -> None:
        if not future.done():
            settle()

    def run() -> None:
        try:
            value = work()
        except BaseException as error:
            settle = partial(future.set_exception, error)
        else:
            settle = partial(future.set_result, value)
        with contextlib.suppress(RuntimeError):  # the loop has ended
            loop.call_soon_threadsafe(deliver, settle)

    threading.Thread(target=run, name="loader", daemon=True).start()
    return await future
