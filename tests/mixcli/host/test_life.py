"""How a host lives and ends: stopped by a signal, told to stop, left by its clients, broken at its start. Every wait has an end."""

import asyncio
import contextlib
import os
import random
import re
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from mixcli.client.host_watch import STOPPING, UNRESPONSIVE
from mixcli.client.openai import HostClient
from mixcli.client.process import Host, hosts, stop
from mixcli.errors import MixcliError, ModelDied, Unresponsive
from mixcli.host.protocol.host_name import HostName
from mixcli.host.protocol.host_record import HostRecord
from mixcli.host.protocol.host_spec import LoadPlan
from mixcli.host.protocol.messages import ChatBody
from mixcli.llama.buffers import buffers_in
from mixcli.system import paths, python_child
from mixcli.system.process_state import born
from tests.conftest import Runner
from tests.mixcli.host.test_host import LONG, QUESTION, ask
from tests.support.hosts import PLACEMENT, connect
from tests.support.traces import CAPITAL
from tests.support.waiting import LIMIT, ends_within, wait_for

model = pytest.mark.model


@contextlib.contextmanager
def paused(pid: int) -> Iterator[None]:
    os.kill(pid, signal.SIGSTOP)
    try:
        yield
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGCONT)


@pytest.mark.slow
@model
def test_a_stopped_host_is_listed_at_once_and_goes_on_afterwards(host: Host) -> None:
    with paused(host.pid):
        with ends_within():
            (state,) = hosts()
        assert (state.status, state.pid, state.model) == (UNRESPONSIVE, host.pid, "demo:Q4_K_M")
    assert CAPITAL.matches(ask(host, QUESTION))
    assert hosts()[0].status == "ready"


@model
@pytest.mark.slow
def test_nothing_waits_for_ever_for_a_stopped_host(host: Host, name: HostName, mixcli: Runner) -> None:
    stream = host.client.chat(ChatBody(whole=LONG))
    next(delta for delta in stream if delta.text)
    found: list[BaseException] = []

    def answered(call: Callable[[], object]) -> None:
        try:
            call()
        except BaseException as error:
            found.append(error)

    def whole() -> None:
        host.client.complete(ChatBody(whole=QUESTION))

    def again() -> None:
        connect(name, PLACEMENT, 0)

    with paused(host.pid):
        calls: list[Callable[[], object]] = [lambda: list(stream), whole, again]
        threads = [threading.Thread(target=answered, args=(call,)) for call in calls]
        for thread in threads:
            thread.start()
        assert f"{host.pid}" in mixcli("ps", timeout=LIMIT).stdout
        for thread in threads:
            thread.join(120)
        assert len(found) == 3
        for error in found:
            assert isinstance(error, Unresponsive), error
            assert error.exit_code == 7
            assert f"pid {host.pid}" in str(error)
            assert "mixcli stop" in str(error)
        assert mixcli("stop", "--all", timeout=LIMIT).returncode == 0
    assert not born(host.pid)
    assert hosts() == []


@model
def test_a_zombie_is_not_alive(name: HostName) -> None:
    """As with `mixcli serve`, which starts a host and goes on: `mixcli stop` in another process must see its end."""
    code = (
        "import subprocess, sys, time\n"
        "child = subprocess.Popen([sys.executable, '-c', 'import time; print(1, flush=True); time.sleep(600)'])\n"
        "print(child.pid, flush=True)\n"
        "time.sleep(600)"  # and never waits for it
    )
    parent = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True)
    assert parent.stdout is not None
    pid = int(next(line for line in parent.stdout if int(line) != 1))
    try:
        with ends_within():
            stop(pid)
        os.kill(pid, 0)  # it is still there as a zombie
    finally:
        parent.kill()
        parent.wait()
        parent.stdout.close()


@pytest.mark.slow
@model
def test_sigterm_ends_a_long_stream_and_the_second_one_everything(host: Host, name: HostName) -> None:
    stream = host.client.chat(ChatBody(whole=LONG))
    next(delta for delta in stream if delta.text)
    os.kill(host.pid, signal.SIGTERM)
    wait_for(lambda: hosts() and hosts()[0].status == STOPPING)
    os.kill(host.pid, signal.SIGTERM)
    assert host.process is not None
    assert host.process.wait(LIMIT) == -signal.SIGTERM
    with pytest.raises(ModelDied):
        list(stream)


@pytest.mark.slow
@model
def test_visitors_who_come_and_go_leave_no_lock_behind(name: HostName) -> None:
    """Many attach during the load and leave at random moments; then the host answers, and ends after its keep-alive."""
    host = connect(name, PLACEMENT, 1)
    deadline = time.monotonic() + 3

    def visit(seed: int) -> None:
        draw = random.Random(seed)
        while time.monotonic() < deadline:
            with contextlib.suppress(OSError, MixcliError), socket.socket(socket.AF_UNIX) as visitor:
                visitor.connect(os.fspath(name.socket))
                visitor.sendall(b"GET /mixcli/attach?keep_alive=1 HTTP/1.1\r\nHost: localhost\r\n\r\n")
                time.sleep(draw.uniform(0, 0.6))

    threads = [threading.Thread(target=visit, args=(seed,)) for seed in range(24)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert CAPITAL.matches(ask(host, QUESTION))
    host.release()
    assert host.process is not None
    assert host.process.wait(LIMIT) == 0, "it stays although nobody is there"


def test_a_state_that_many_wait_for_is_not_locked_by_those_who_leave() -> None:
    """The same in one process: waiters are cancelled at every stage of their waiting."""
    from mixcli.host.state import HostState

    async def main() -> None:
        state = HostState.__new__(HostState)
        state._changed = asyncio.Event()
        draw = random.Random(0)
        for _ in range(50):
            waiters = [asyncio.create_task(state.change()) for _ in range(20)]
            await asyncio.sleep(draw.choice((0, 0.001)))
            state.wake()
            for waiter in waiters:
                waiter.cancel()
                if draw.random() < 0.5:
                    await asyncio.sleep(0)
                    waiter.cancel()
            await asyncio.gather(*waiters, return_exceptions=True)
        await asyncio.wait_for(state.change(), LIMIT)

    asyncio.run(main())


@pytest.mark.slow
@model
def test_a_load_whose_client_dies_is_given_up(name: HostName) -> None:
    held: list[Host] = []
    code = (
        "import sys\nfrom pathlib import Path\nfrom mixcli.host.protocol.host_name import HostName\n"
        "from profiles.placement import Placement\nfrom tests.support.hosts import connect\n"
        "connect(HostName(Path(sys.argv[1]), 'demo', '{}'), Placement(n_ctx=2048), 0, lambda *a: print(a, flush=True), is_forked=False)"
    )
    client = subprocess.Popen(
        [sys.executable, "-c", code, os.fspath(name.path)], stdout=subprocess.PIPE, text=True
    )
    assert client.stdout is not None
    client.stdout.readline()
    client.kill()
    client.wait()
    client.stdout.close()
    assert held == []
    wait_for(lambda: hosts() == [])


@pytest.mark.parametrize(
    ("argument", "words"),
    [
        ("{", "invalid start-up data"),
        ('{"name": {}}', "invalid start-up data"),
        ("[]", "invalid start-up data"),
        (None, "invalid start-up data"),
    ],
)
def test_an_order_that_cannot_be_read_is_told(argument: str | None, words: str, home: Path) -> None:
    given = [] if argument is None else [argument]
    done = python_child.run("-m", "mixcli.host", *given, seconds=60)
    assert done.code == 1
    assert words in done.last_words


@pytest.mark.parametrize("broken", ["folder", "long", "module"])
def test_a_start_that_fails_says_why(
    broken: str, home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "model.gguf"
    file.write_bytes(b"GGUF")
    name = HostName(file, "model", "{}")
    words = ""
    if broken == "long":
        long = tmp_path / ("x" * 120)
        long.mkdir()
        monkeypatch.setitem(name.__dict__, "socket", long / "model.sock")
        monkeypatch.setattr(paths, "runtime_dir", lambda: long)
        code = (
            "import sys\nfrom pathlib import Path\nfrom mixcli.system import paths\n"
            f"paths.runtime_dir = lambda: Path({os.fspath(long)!r})\nfrom mixcli.host.__main__ import main\nmain()"
        )
        words = "cannot listen on"
    elif broken == "module":
        code = "import sys\nsys.modules['uvicorn'] = None\nfrom mixcli.host.__main__ import main\nmain()"
        words = "uvicorn"
    else:
        code = (
            "import os, sys\nos.chdir = lambda path: (_ for _ in ()).throw(FileNotFoundError(2, 'No such file or directory', str(path)))\n"
            "from mixcli.host.__main__ import main\nmain()"
        )
        words = "no such file"
    from mixcli.host.protocol.host_spec import HostSpec

    done = python_child.run("-c", code, HostSpec(name, LoadPlan(PLACEMENT)).to_json(), seconds=60)
    assert done.code == 1
    assert words in done.err


@pytest.mark.parametrize(
    ("n_threads", "head_start"),
    [
        (1, 0),
        pytest.param(64, 0.2, marks=pytest.mark.skipif(sys.platform != "linux", reason="needs timer_create")),
    ],
    ids=["a new thread", "many cores"],
)
def test_a_host_that_holds_pythons_lock_for_ever_is_ended(
    home: Path, n_threads: int, head_start: float
) -> None:
    code = (
        "import asyncio, re, threading, time, mixcli.host.watchdog as watchdog\n"
        "watchdog.PATIENCE = 0.5\nwatchdog.BEAT = 0.05\n"
        "async def main():\n"
        f"    guard = watchdog.Watchdog({n_threads})\n    guard.start()\n    task = asyncio.create_task(guard.beat())\n"
        "    def search():\n"
        f"        time.sleep({head_start})\n        re.search(r'(a*)*b', 'a' * 200)\n"
        "    threading.Thread(target=search, daemon=True).start()\n"
        "    await asyncio.sleep(600)\n"
        "asyncio.run(main())"
    )
    done = python_child.run("-c", code, seconds=LIMIT)
    assert done.code == -signal.SIGPROF, done
    assert "in search" in done.err or "re/__init__.py" in done.err


def test_a_long_word_in_llamacpps_log_takes_no_time() -> None:
    with ends_within():
        found = buffers_in(
            ["x" * 1_000_000 + " buffer size", " CUDA0 model buffer size =  1.00 MiB"], ["CUDA0"]
        )
    assert found["CUDA0"].weights == 1 << 20


def test_a_note_of_a_dead_process_is_cleared_away(home: Path) -> None:
    child = subprocess.Popen([sys.executable, "-c", ""])
    child.wait()
    folder = paths.runtime_dir()
    note = HostRecord(
        os.getpid(), "long ago", os.fspath(folder / "0.sock"), "x", "x"
    )  # our id, which another process had
    note.write()
    assert note.file.exists()
    assert hosts() == []
    assert not note.file.exists()


def test_a_client_of_a_socket_that_says_nothing_has_an_end(home: Path) -> None:
    path = paths.runtime_dir() / "0123456789abcdef.sock"
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(os.fspath(path))
        listener.listen(8)
        with ends_within(), pytest.raises(TimeoutError):
            HostClient(path).health()
        with ends_within():
            (state,) = hosts()
        assert state.pid == os.getpid()
    assert re.search("unresponsive", state.status)
