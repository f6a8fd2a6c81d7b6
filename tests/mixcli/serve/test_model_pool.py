"""Who gets memory, when, and in which order: the pool with hosts that answer at once and loads that the test lets end."""

import asyncio
import contextlib
import random
import threading
from collections import Counter
from collections.abc import AsyncIterator, Callable, Coroutine
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from mixcli.errors import DoesNotFit, IntegrityError, MixcliError
from mixcli.serve import model_lifecycle as lifecycles
from mixcli.serve import model_pool as pools
from mixcli.serve.eviction import Ledger, fits
from mixcli.serve.loader import Planned, RunningHost
from mixcli.serve.model_lifecycle import ModelLifecycle
from mixcli.serve.model_names import ServedModel, ServedModels
from mixcli.serve.model_pool import ModelPool
from mixcli.serve.model_state import State, Unavailable

LIMIT = 10
SIZES = {"a": 6, "b": 6, "c": 4}


@dataclass(frozen=True)
class Host:
    label: str
    socket: Path


@dataclass
class Shelf:
    """Loads and unloads in no time, unless a test holds a load back; refuses to hold more than the memory has."""

    folder: Path
    loaded: Counter[str] = field(default_factory=Counter)
    loads: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    broken: set[str] = field(default_factory=set)
    lent: set[str] = field(default_factory=set)
    dead: set[str] = field(default_factory=set)
    held_back: dict[str, threading.Event] = field(default_factory=dict)
    unloads_held_back: threading.Event | None = None
    stays: set[str] = field(default_factory=set)  # hosts that do not end
    n_plans: int = 0

    def plan(self, model: ServedModel, left: Ledger) -> Planned:
        self.n_plans += 1
        if not fits(model.needs, left):
            raise DoesNotFit(f"{model.label} needs {model.needs} of {left}")
        return Planned(model.needs, is_whole=True, order=None)

    def load(self, model: ServedModel, planned: Planned, report: Callable[[float], None]) -> Host:
        report(0.43)
        if event := self.held_back.get(model.label):
            assert event.wait(60)
        if model.label in self.broken:
            raise IntegrityError("the file is damaged")
        self.loaded[model.label] += 1
        self.loads.append(model.label)
        assert sum(SIZES[label] * n for label, n in self.loaded.items()) <= LIMIT
        return Host(model.label, self.folder / model.label)

    def unload(self, host: RunningHost, *, anyway: bool = False) -> bool:
        assert isinstance(host, Host)
        if host.label in self.lent and not anyway:
            return False
        if self.unloads_held_back is not None:
            assert self.unloads_held_back.wait(60)
        if host.label in self.stays:
            raise MixcliError("the process 7 did not end after SIGKILL")
        self.loaded[host.label] -= 1
        return True

    def cause(self, host: RunningHost) -> str:
        return ""

    def answers(self, host: RunningHost) -> bool:
        assert isinstance(host, Host)
        return host.label not in self.dead

    def note(self, text: str) -> None:
        self.notes.append(text)


async def say_nothing(_text: str) -> None:
    pass


async def _answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    await reader.readuntil(b"\r\n\r\n")
    body = b'{"data": [{"id": "one"}]}'
    writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\nConnection: close\r\n\r\n" % len(body) + body)
    await writer.drain()
    writer.close()


@contextlib.asynccontextmanager
async def opened(
    shelf: Shelf, *, kept: str = "", idle_limit: float = -1
) -> AsyncIterator[tuple[ModelPool, ModelLifecycle]]:
    models = [
        ServedModel(label, size, 512, {"host": size}, (), label in kept) for label, size in SIZES.items()
    ]
    lifecycle = ModelLifecycle(ServedModels(models), {"host": LIMIT}, shelf, idle_limit)
    pool = ModelPool(lifecycle)
    pool.start()
    servers = [await asyncio.start_unix_server(_answer, shelf.folder / label) for label in SIZES]
    try:
        yield pool, lifecycle
    finally:
        await lifecycle.close()
        for server in servers:
            server.close()


Body = Callable[[ModelPool, ModelLifecycle, Shelf], Coroutine[None, None, None]]


@pytest.fixture
def run(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Shelf]:
    """Run a test's body in an event loop with a pool that no request has been made of."""
    shelf = Shelf(tmp_path_factory.mktemp("p"))

    def runs(body: Body, **options: object) -> Shelf:
        async def main() -> None:
            async with asyncio.timeout(60), opened(shelf, **options) as (pool, lifecycle):  # type: ignore[arg-type]
                await body(pool, lifecycle, shelf)

        asyncio.run(main())
        return shelf

    return runs


class Request:
    """A request that holds its model until `end`; `has` is set once it has it."""

    def __init__(self, pool: ModelPool, label: str, log: list[str] | None = None) -> None:
        self.has, self._end = asyncio.Event(), asyncio.Event()
        self.said: list[str] = []
        self._log = log
        self.task = asyncio.create_task(self._run(pool, label))

    async def _run(self, pool: ModelPool, label: str) -> None:
        async def tell(text: str) -> None:
            self.said.append(text)

        async with pool.lease(label, tell):
            if self._log is not None:
                self._log.append(label)
            self.has.set()
            await self._end.wait()

    async def end(self) -> None:
        self._end.set()
        await self.task


async def until(condition: Callable[[], bool]) -> None:
    while not condition():
        await asyncio.sleep(0.001)


def test_all_that_ask_for_a_model_wait_for_one_load(run: Callable[..., Shelf]) -> None:
    async def body(pool: ModelPool, lifecycle: ModelLifecycle, shelf: Shelf) -> None:
        shelf.held_back["a"] = threading.Event()
        requests = [Request(pool, "a") for _ in range(5)]
        await until(lambda: lifecycle.slots["a"].state is State.LOADING)
        assert not any(request.has.is_set() for request in requests)
        shelf.held_back["a"].set()
        for request in requests:
            await request.has.wait()
        assert lifecycle.slots["a"].n_running == 5
        for request in requests:
            await request.end()

    assert run(body).loads == ["a"]


def test_the_idle_one_goes_and_the_kept_one_stays(run: Callable[..., Shelf]) -> None:
    async def body(pool: ModelPool, lifecycle: ModelLifecycle, shelf: Shelf) -> None:
        for label in ("c", "a", "b", "c"):
            async with pool.lease(label, say_nothing):
                pass
        assert lifecycle.memory().left == {"host": 0}
        assert lifecycle.slots["a"].counts["unloads for b"] == 1

    assert run(body, kept="c").loads == ["c", "a", "b"]


def test_a_kept_one_has_its_place_before_it_is_loaded(run: Callable[..., Shelf]) -> None:
    async def body(pool: ModelPool, lifecycle: ModelLifecycle, shelf: Shelf) -> None:
        assert lifecycle.memory().left == {"host": LIMIT - SIZES["b"]}
        with pytest.raises(Unavailable, match="a cannot be loaded"):
            async with pool.lease("a", say_nothing):
                pass
        async with pool.lease("b", say_nothing):
            pass

    assert run(body, kept="b").loads == ["b"]


def test_a_busy_one_is_waited_for_and_two_models_take_turns(run: Callable[..., Shelf]) -> None:
    async def body(pool: ModelPool, lifecycle: ModelLifecycle, shelf: Shelf) -> None:
        log: list[str] = []
        first = Request(pool, "a", log)
        await first.has.wait()
        other = Request(pool, "b", log)
        await until(lambda: pool._draining == {"a"})
        later = Request(pool, "a", log)
        await asyncio.sleep(0.01)
        assert log == ["a"], "the later one waits behind the other model"
        assert shelf.loaded["a"] == 1, "one that answers is not unloaded"
        await first.end()
        await other.has.wait()
        again = Request(pool, "b", log)  # the model is wanted by `later` already
        await other.end()
        await later.has.wait()
        assert log == ["a", "b", "a"]
        await later.end()
        await again.has.wait()
        await again.end()

    assert run(body).loads == ["a", "b", "a", "b"]


def test_a_wait_for_memory_has_an_end_and_says_who_has_it(
    run: Callable[..., Shelf], monkeypatch: pytest.MonkeyPatch
) -> None:
    async def body(pool: ModelPool, lifecycle: ModelLifecycle, shelf: Shelf) -> None:
        running = Request(pool, "a")
        await running.has.wait()
        monkeypatch.setattr(pools, "MAX_WAIT", 0.05)
        waiting = Request(pool, "b")
        await until(lambda: pool._draining == {"a"})
        behind = Request(pool, "a")
        with pytest.raises(Unavailable) as refused:
            await waiting.task
        assert refused.value.refusal.status == 503
        assert refused.value.refusal.retry_after
        assert "a answers 1 request" in str(refused.value)
        assert "takes 6 B, 4 B of 10 B are free" in str(refused.value)
        await behind.has.wait()  # its model is still there
        await behind.end()
        await running.end()

    assert run(body).loads == ["a"]


def test_a_failed_load_is_told_to_all_and_tried_again_after_a_pause(
    run: Callable[..., Shelf], monkeypatch: pytest.MonkeyPatch
) -> None:
    async def body(pool: ModelPool, lifecycle: ModelLifecycle, shelf: Shelf) -> None:
        async with pool.lease("c", say_nothing):
            shelf.broken.add("a")
            refused = await asyncio.gather(
                *(Request(pool, "a").task for _ in range(3)), return_exceptions=True
            )
            assert {str(one) for one in refused} == {"a cannot be loaded: the file is damaged"}
            with pytest.raises(Unavailable, match="damaged"):
                await Request(pool, "a").task
            assert lifecycle.slots["a"].counts["failures"] == 1, "in the pause it is not tried"
            shelf.broken.clear()
            failure = lifecycle.slots["a"].failure
            assert failure is not None
            monkeypatch.setattr(
                lifecycle.slots["a"], "failure", lifecycles.Failure(failure.reason, 0, failure.error)
            )
            async with pool.lease("a", say_nothing):
                assert lifecycle.slots["a"].failure is None

    assert run(body).loads == ["c", "a"]


def test_who_leaves_is_waited_for_no_longer(run: Callable[..., Shelf]) -> None:
    async def body(pool: ModelPool, lifecycle: ModelLifecycle, shelf: Shelf) -> None:
        running = Request(pool, "a")
        await running.has.wait()
        leaving = Request(pool, "b")
        await until(lambda: pool._draining == {"a"})
        leaving.task.cancel()
        await until(lambda: not pool._draining)
        async with pool.lease("a", say_nothing):
            pass
        await running.end()
        assert lifecycle.slots["a"].n_running == 0

    assert run(body).loads == ["a"]


def test_what_another_program_uses_stays_until_it_does_not(
    run: Callable[..., Shelf], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pools, "LENT_PAUSE", 0.01)

    async def body(pool: ModelPool, lifecycle: ModelLifecycle, shelf: Shelf) -> None:
        async with pool.lease("a", say_nothing):
            pass
        shelf.lent.add("a")
        waiting = Request(pool, "b")
        await until(lambda: lifecycle.slots["a"].is_lent)
        assert shelf.loaded["a"] == 1
        shelf.lent.clear()
        await waiting.has.wait()
        await waiting.end()

    assert run(body).loads == ["a", "b"]


def test_a_process_that_ended_is_replaced_and_only_once(run: Callable[..., Shelf]) -> None:
    async def body(pool: ModelPool, lifecycle: ModelLifecycle, shelf: Shelf) -> None:
        async with pool.lease("a", say_nothing) as dead:
            pass
        await pool.lost("a", dead)
        assert lifecycle.slots["a"].state is State.LOADED, "it only did not take a request"
        shelf.dead.add("a")
        await asyncio.gather(pool.lost("a", dead), pool.lost("a", dead))
        async with pool.lease("a", say_nothing) as new:
            assert new is not dead
            await pool.lost("a", dead)
            assert lifecycle.slots["a"].state is State.LOADED

    assert run(body).loads == ["a", "a"]


def test_an_unused_one_is_unloaded_but_not_one_of_the_start(run: Callable[..., Shelf]) -> None:
    async def body(pool: ModelPool, lifecycle: ModelLifecycle, shelf: Shelf) -> None:
        await pool.preload("c")
        async with pool.lease("a", say_nothing):
            await asyncio.sleep(0.01)
            assert lifecycle.slots["a"].state is State.LOADED
        await until(lambda: lifecycle.slots["a"].state is State.UNLOADED)
        assert lifecycle.slots["c"].state is State.LOADED
        await pool.preload("b", only_beside=True)
        await pool.preload("a", only_beside=True)  # no room beside b
        assert shelf.loads == ["c", "a", "b"]

    run(body, idle_limit=0)


def test_what_is_waited_for_is_told(run: Callable[..., Shelf], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pools, "TICK", 0.001)

    async def body(pool: ModelPool, lifecycle: ModelLifecycle, shelf: Shelf) -> None:
        running = Request(pool, "a")
        await running.has.wait()
        shelf.held_back["b"] = threading.Event()
        waiting = Request(pool, "b")
        await until(lambda: "waiting for memory: a answers 1 request" in waiting.said)
        await running.end()
        await until(lambda: "loading 43 %" in waiting.said)
        shelf.held_back["b"].set()
        await waiting.has.wait()
        await waiting.end()

    run(body)


def test_what_needs_nobodys_place_does_not_wait_behind_what_does(run: Callable[..., Shelf]) -> None:
    async def body(pool: ModelPool, lifecycle: ModelLifecycle, shelf: Shelf) -> None:
        running = Request(pool, "a")
        await running.has.wait()
        waiting = Request(pool, "b")
        await until(lambda: pool._draining == {"a"})
        async with pool.lease("c", say_nothing):
            assert not waiting.has.is_set()
        await running.end()
        await waiting.has.wait()
        await waiting.end()

    assert run(body).loads == ["a", "c", "b"]


def test_many_requests_for_three_models_are_all_served_within_the_memory(run: Callable[..., Shelf]) -> None:
    """Ten clients that choose at random; `Shelf.load` holds the sum of what is loaded to the limit."""

    async def body(pool: ModelPool, lifecycle: ModelLifecycle, shelf: Shelf) -> None:
        chosen = random.Random(3)
        served: Counter[str] = Counter()

        async def client(labels: list[str]) -> None:
            for label in labels:
                async with pool.lease(label, say_nothing):
                    assert shelf.loaded[label] == 1
                    await asyncio.sleep(0.0005)
                served[label] += 1

        await asyncio.gather(*(client(chosen.choices("abc", k=10)) for _ in range(10)))
        assert served.total() == 100
        assert len(shelf.loads) < 60, "a turn serves all that has come for it"
        assert all(slot.n_running == 0 and not slot.waiters for slot in lifecycle.slots.values())

    run(body)
