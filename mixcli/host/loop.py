"""The thread that owns the engine: it loads the model, then steps while there is work.

llama.cpp's context belongs to one thread; other threads put calls into the inbox and read outputs from an asyncio queue.
"""

import os
import queue
import sys
import threading
import time
import traceback
import weakref
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from typing import NoReturn, TypeVar

from mixcli.engine.draft_model import Drafting
from mixcli.engine.engine import MAX_RUNNING, MAX_WAITING, Engine
from mixcli.engine.faults import request_error, survived
from mixcli.engine.sequence import Output
from mixcli.errors import Busy, MixcliError, ModelDied, NotReachable
from mixcli.host.call import Call, ChatQuestion, Item, deliver
from mixcli.host.cpu_arbiter import CpuArbiter
from mixcli.host.cpu_contention import CpuContention
from mixcli.host.drafting import load_drafter
from mixcli.host.kv_location import file_identity, open_store
from mixcli.host.meter import EngineMeter
from mixcli.host.metrics import HostMetrics
from mixcli.host.preparation import NO_FEATURES, QUICK, Features, Lanes, Preparation, Prepared
from mixcli.host.protocol.health import HostCounts
from mixcli.host.protocol.host_spec import HostSpec
from mixcli.host.protocol.paths import FAILED, LOADING, READY
from mixcli.llama.context import ContextLost
from mixcli.llama.loading import Loaded, load
from mixcli.llama.worker_watch import COMPUTE, LOAD, WorkerWatch
from mixcli.prompts.answer_tokens import AnswerTokenCache
from mixcli.prompts.base_model import format_of
from mixcli.system import paths

T = TypeVar("T")

MAX_INBOX = 0.2  # seconds for which requests that run wait while others begin or end
MAX_CALLS = MAX_WAITING + MAX_RUNNING  # that are not answered yet, wherever they are
ENDED = "the model process was stopped before the answer was complete; retry to load the model again"


class EngineLoop:
    """Runs the engine of one host; `on_state` is called from its thread after every change of state or progress."""

    def __init__(self, spec: HostSpec, on_state: Callable[[], None]) -> None:
        self.spec = spec
        self.placement = spec.order.placement
        self.status = LOADING
        self.progress = 0.0
        self.notes: list[str] = []
        self.error: BaseException | None = None
        self.metrics = HostMetrics()
        self.meter = EngineMeter(self.metrics)
        self._on_state = on_state
        self._inbox: queue.SimpleQueue[Callable[[], None] | None] = queue.SimpleQueue()
        self._calls: dict[str, Call] = {}
        self._asked: weakref.WeakValueDictionary[str, Call] = weakref.WeakValueDictionary()
        self._lanes = Lanes()
        self._workers = WorkerWatch(self.placement.workers, self._on_lost_worker)
        self._sharing = CpuArbiter(paths.runtime_dir())
        self._closing = threading.Event()
        self._thread = threading.Thread(target=self._main, name="engine", daemon=True)

    def start(self) -> None:
        """Begin to load the model."""
        self._thread.start()

    def submit(self, call: Call) -> None:
        """Queue a call; its outputs begin when the model is loaded and there is room for it. Raises Busy when too many wait."""
        if (n := len(self._asked)) >= MAX_CALLS:
            raise Busy(f"{n:,} requests are queued already; retry in a few seconds")
        self._asked[call.id] = call
        self._lanes.put(lambda: self._prepare(call), slow=self._is_slow(call.question))

    def abort(self, call: Call) -> None:
        """Drop a call whose client is gone."""
        self._inbox.put(lambda: self._drop(call))
        if call.id in self._calls:
            self._engine.interrupt(call.id)  # so that a long prefill need not end first

    def end_requests(self) -> None:
        """End whatever is being answered, or waits for that, with an error."""
        calls = list(self._asked.values())
        deliver([(call, ModelDied(ENDED)) for call in calls])
        for call in calls:
            self.abort(call)

    def counts(self) -> HostCounts:
        """Return what runs, waits and was done; zeros before the model is loaded."""
        return self.meter.counts(self._n_threads[0]) if self.status == READY else HostCounts()

    def features(self) -> Features:
        """Return what the model can be used for; nothing before it is loaded."""
        return self._preparation.features() if self.status == READY else NO_FEATURES

    def pieces(self, tokens: Sequence[int]) -> list[bytes]:
        """Return the bytes of tokens."""
        return [self._vocab.piece(token) for token in tokens]

    def prepare(self, work: Callable[[Preparation], T], n_characters: int = 0) -> "Future[T]":
        """Do something quick with the loaded model in a lane, such as to split `n_characters` into tokens."""
        return self._lanes.put(lambda: work(self._ready()), slow=n_characters > QUICK)

    def compute_beside(self, work: Callable[[Preparation], T]) -> "Future[T]":
        """Compute something in a context beside the engine's, one at a time."""

        def compute() -> T:
            with self._workers.waiting(COMPUTE):  # in a lane, not in the engine's thread
                return work(self._ready())

        return self._lanes.put_beside(compute)

    def close(self, timeout: float) -> None:
        """Stop after the current step, write the caches to disk, and wait for the thread at most `timeout` seconds."""
        self._closing.set()
        self._lanes.close()
        self._inbox.put(None)
        if self.status == READY:
            self._engine.interrupt()
        if self.status != FAILED and self._thread.is_alive():  # a thread whose load failed may hang in it
            self._thread.join(timeout)

    def _ready(self) -> Preparation:
        """Return what prepares, in a lane after the load; raise the load's error where it failed, ModelDied where the host ends before it."""
        if self.error is not None:
            raise self.error
        if self.status != READY:
            raise ModelDied(ENDED)
        return self._preparation

    def _is_slow(self, question: ChatQuestion) -> bool:
        """Return whether preparing a question may take seconds: for a long text, a new grammar, or texts that end repetitions."""
        if question.n_characters > QUICK or question.sampling.has_long_breakers:
            return True
        is_free = question.constraint is None and not question.tool_use.tools
        return not is_free and (self.status != READY or self._preparation.needs_grammar(question))

    # the engine's thread

    def _main(self) -> None:
        try:
            with self._workers.waiting(LOAD):
                self._load()
        except BaseException as error:
            self._fail(error)
            return
        if self.status == FAILED:  # the worker was given up, and answered then
            return
        self.status = READY
        self._lanes.open()
        self._on_state()
        try:
            while not self._closing.is_set():
                self._turn()
            self._engine.close()
        except (
            ContextLost
        ) as error:  # nothing that the context holds can be trusted: the front ends say why the process ended
            _end(f"mixcli: {error}")
        except BaseException:  # so is it with a bug that no single request can have caused
            _end(traceback.format_exc())

    def _fail(self, error: BaseException) -> None:
        self.error, self.status = error, FAILED
        self._lanes.open()
        self._on_state()

    def _on_lost_worker(self, error: NotReachable) -> None:
        """Fail from another thread, while the engine's own hangs in llama.cpp."""
        if self.status == READY:
            _end(f"mixcli: {error}")
        self._fail(error)

    def _load(self) -> None:
        def on_progress(share: float) -> bool:
            self._workers.alive()
            if share - self.progress >= 0.01 or share == 1.0:
                self.progress = share
                self._on_state()
            return not self._closing.is_set()

        order, path, identity = self.spec.order, self.spec.name.path, file_identity(self.spec.name.path)
        smaller = (order.smaller.placement, order.smaller.expected) if order.smaller else None
        self._loaded: Loaded = load(path, order.placement, order.expected, smaller, on_progress)
        drafter = load_drafter(order, self._loaded)
        self.notes += self._loaded.notes
        self.placement = self._loaded.placement
        self._vocab = self._loaded.model.vocab
        chat_format = format_of(self._loaded.model)
        self._answers = AnswerTokenCache(self._vocab)
        store = None
        try:
            store = open_store(path, identity, self.placement)
        except MixcliError as error:
            self.notes.append(str(error))
        except OSError as error:  # a folder that may not be read: nothing is kept
            self.notes.append(f"the disk cache is off: {error}")
        self._n_threads = self.placement.n_threads, self.placement.n_threads_batch
        self._crowding = CpuContention(max(self._n_threads))
        self._engine = Engine(
            self._loaded.model, self._loaded.context, store, Drafting(drafter, order.step_costs)
        )
        self.meter.begin(self._engine, order, self._loaded)
        self._preparation = Preparation(self._loaded, chat_format, self._answers, self._engine)

    def _turn(self) -> None:
        """Take what is in the inbox, for a moment, waiting for it when there is nothing else to do, then step once."""
        until = time.monotonic() + MAX_INBOX
        while not self._engine.has_work or (not self._inbox.empty() and time.monotonic() < until):
            if not self._engine.has_work:
                self._sharing.idle()
            action = self._inbox.get()
            if action is None:
                return
            with self._workers.waiting(COMPUTE), self.meter.timed():
                action()
        self._share()
        with self._workers.waiting(COMPUTE), self.meter.timed():
            outputs = self.meter.step(self._engine)
        taken = map(self._take, outputs)
        deliver([item for item in taken if item is not None])

    def _take(self, output: Output) -> tuple[Call, Item] | None:
        """Record the output of a call; None if no client waits for it."""
        with survived():
            self.metrics.observe(output)
        call = self._calls.get(output.id)
        if call is None:  # its client is gone
            return None
        if output.progress is None:
            call.outputs.append(output)
        if output.is_last:
            del self._calls[call.id]
            if output.finish_reason == "stop" and not call.question.choices:
                with survived():
                    self._answers.learn(call.text, call.token_ids)
        elif call.as_whole:
            return None
        return call, output.error or output

    def _prepare(self, call: Call) -> None:
        """Make a request of a call, in a lane, and hand it to the engine's thread; one that was aborted meanwhile ends there."""
        if call.gone:
            return
        try:
            prepared = self._ready().prepare(call.id, call.question)
            check = self._engine.on_disk(prepared.request.prompt)
        except Exception as error:
            deliver([(call, request_error(error))])
            return
        if check is None:
            self._inbox.put(lambda: self._add(call, prepared))
            return

        def check_first() -> None:
            try:
                check()
            finally:
                self._inbox.put(lambda: self._add(call, prepared))

        self._lanes.put(check_first, slow=True)

    def _add(self, call: Call, prepared: Prepared) -> None:
        if call.gone:
            return
        call.n_prompt, call.n_dropped = len(prepared.request.prompt), prepared.n_dropped
        try:
            self._engine.add(prepared.request, prepared.constraint, prepared.sampler)
        except Exception as error:
            deliver([(call, request_error(error))])
        else:
            self._calls[call.id] = call

    def _drop(self, call: Call) -> None:
        """Abort a call; one that has not reached the engine ends here."""
        if call.id in self._calls:
            self._engine.abort(call.id)
        else:
            call.gone = True
            deliver([(call, Output(call.id, "", (), "abort"))])

    def _share(self) -> None:
        """Divide the cores with the other models that compute now, and with other programs."""
        n_models, most = 1 + self._sharing.busy(), self._crowding.n_threads()
        wanted = self.placement.n_threads, self.placement.n_threads_batch
        n, n_batch = (max(1, min(one // n_models, most)) for one in wanted)
        if self._engine.is_deterministic:
            n, n_batch = wanted  # sums are divided among threads, so their number shows in the last bits
        if self._n_threads != (n, n_batch):
            self._n_threads = n, n_batch
            self._loaded.context.set_threads(n, n_batch)


def _end(why: str) -> NoReturn:
    """End this process; the reason becomes the last line of its log."""
    sys.stderr.write(f"{why}\n")
    sys.stderr.flush()
    os._exit(MixcliError.exit_code)
