"""The one thread that owns the engine: it loads the model, then steps while there is work.

llama.cpp's context belongs to one thread; everybody else puts calls into the inbox and reads outputs from an asyncio queue.
"""

import asyncio
import os
import queue
import threading
import traceback
from collections.abc import Callable
from dataclasses import dataclass, field

from mixcli.engine.engine import Engine
from mixcli.engine.formats import Message
from mixcli.engine.loading import load
from mixcli.engine.prompt import ChatFormat
from mixcli.engine.sampling import SamplingParams
from mixcli.engine.sequence import Output, Request
from mixcli.errors import MixcliError
from mixcli.host.protocol import FAILED, LOADING, READY
from mixcli.host.spec import HostSpec

Item = Output | BaseException


@dataclass
class Call:
    """One request on its way through the engine; outputs arrive in `items`, an exception ends them."""

    id: str
    messages: tuple[Message, ...]
    sampling: SamplingParams
    loop: asyncio.AbstractEventLoop
    items: "asyncio.Queue[Item]" = field(default_factory=asyncio.Queue)

    def put(self, item: Item) -> None:
        """Hand an output to the waiting handler, from the engine's thread."""
        self.loop.call_soon_threadsafe(self.items.put_nowait, item)


class EngineLoop:
    """Runs the engine of one host; `on_state` is called from its thread after every change of state or progress."""

    def __init__(self, spec: HostSpec, on_state: Callable[[], None]) -> None:
        self.spec = spec
        self.placement = spec.order.placement
        self.status = LOADING
        self.progress = 0.0
        self.notes: list[str] = []
        self.error: BaseException | None = None
        self._on_state = on_state
        self._inbox: queue.SimpleQueue[Callable[[], None] | None] = queue.SimpleQueue()
        self._calls: dict[str, Call] = {}
        self._closing = threading.Event()
        self._thread = threading.Thread(target=self._main, name="engine", daemon=True)

    def start(self) -> None:
        """Begin to load the model."""
        self._thread.start()

    def submit(self, call: Call) -> None:
        """Queue a request; its outputs begin when the model is loaded and the requests before it are done."""
        self._inbox.put(lambda: self._add(call))

    def abort(self, call: Call) -> None:
        """Drop a request whose asker is gone."""
        self._inbox.put(lambda: self._drop(call.id))
        if call.id in self._calls:
            self._engine.interrupt()  # so that a long prefill need not end first

    def close(self, timeout: float) -> None:
        """Stop after the present step and wait for the thread at most `timeout` seconds."""
        self._closing.set()
        self._inbox.put(None)
        self._thread.join(timeout)

    def _main(self) -> None:
        try:
            self._load()
        except BaseException as error:
            self.error, self.status = error, FAILED
            self._on_state()
            return
        self.status = READY
        self._on_state()
        try:
            while not self._closing.is_set():
                self._turn()
        except (
            BaseException
        ):  # a bug: the engine's state is unknown, so the process ends, and the front ends say so
            traceback.print_exc()
            os._exit(MixcliError.exit_code)

    def _load(self) -> None:
        def on_progress(share: float) -> bool:
            if share - self.progress >= 0.01 or share == 1.0:
                self.progress = share
                self._on_state()
            return not self._closing.is_set()

        order = self.spec.order
        smaller = (order.smaller.placement, order.smaller.expected) if order.smaller else None
        loaded = load(self.spec.name.path, order.placement, order.expected, smaller, on_progress)
        self.notes += loaded.notes
        self.placement = loaded.placement
        self._format = ChatFormat.of(loaded.model)
        self._engine = Engine(loaded.model, loaded.context)

    def _turn(self) -> None:
        """Take what is in the inbox, waiting for it when there is nothing else to do, then step once."""
        while not self._inbox.empty() or not self._engine.has_work:
            action = self._inbox.get()
            if action is None:
                return
            action()
        try:
            outputs = self._engine.step()
        except MixcliError as error:
            for call_id in self._calls.keys() - self._engine.ids():
                self._calls.pop(call_id).put(error)
            return
        for output in outputs:
            call = self._calls.get(output.id)
            if call is not None:  # its asker may be gone
                call.put(output)
                if output.finish_reason is not None:
                    del self._calls[output.id]

    def _add(self, call: Call) -> None:
        try:
            prompt = self._format.encode(call.messages)
            continues = call.messages[-1].role == "assistant"
            self._engine.add(Request(call.id, tuple(prompt), call.sampling, continues))
        except MixcliError as error:
            call.put(error)
        else:
            self._calls[call.id] = call

    def _drop(self, call_id: str) -> None:
        if self._calls.pop(call_id, None) is not None:
            self._engine.abort(call_id)
