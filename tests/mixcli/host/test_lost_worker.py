"""Workers that freeze when the handshake is over, or later: the error names the worker, in bounded time."""

import contextlib
import json
import os
import signal
import socket
import struct
import subprocess
import sys
import threading
import time
from collections.abc import Iterator

import pytest

from mixcli.client.openai import HostClient
from mixcli.errors import ModelDied, NotReachable
from mixcli.host.protocol.errors import raise_error
from mixcli.host.protocol.host_name import HostName
from mixcli.host.protocol.host_spec import HostSpec, LoadPlan
from mixcli.host.protocol.messages import ChatBody
from mixcli.llama import worker_watch
from mixcli.llama.rpc_wire import HELLO
from mixcli.llama.worker_connections import Traffic, ended, places_of, traffic
from mixcli.request.prompt import ChatTurn
from mixcli.system import python_child
from profiles.placement import Placement
from tests.mixcli.host.test_host import LONG
from tests.support.hosts import connect
from tests.support.llama_workers import free_port, start_worker
from tests.support.slow_relay import slow_relay
from tests.support.waiting import LIMIT, ends_within, wait_for

PATIENCE = (
    "import mixcli.llama.worker_watch as watch\nwatch.LOAD = watch.COMPUTE = {0}\nwatch.POLL_INTERVAL = 0.1\n"
    "import mixcli.llama.devices as devices\ndevices.SILENCE = {0}\n"
)
QUICK, SLOW = PATIENCE.format(0.5), PATIENCE.format(8)  # seconds; SLOW for a worker that computes first
HOST = "from mixcli.host.__main__ import main\nmain()"


@pytest.fixture
def worker() -> Iterator[tuple[str, "subprocess.Popen[bytes]"]]:
    port = free_port()
    with start_worker(port) as process:
        yield f"127.0.0.1:{port}", process
        process.kill()


@pytest.fixture
def frozen(worker: tuple[str, "subprocess.Popen[bytes]"]) -> Iterator[str]:
    """A worker that greets everybody as a real one does, and says nothing more."""
    host, port = worker[0].split(":")
    with socket.create_connection((host, int(port))) as real:
        real.sendall(HELLO)
        greeting = real.recv(64)
    with contextlib.ExitStack() as stack:
        server = stack.enter_context(socket.create_server(("127.0.0.1", 0)))

        def run() -> None:
            with contextlib.suppress(OSError):
                while True:
                    peer = stack.enter_context(server.accept()[0])
                    peer.recv(64)
                    peer.sendall(greeting)

        threading.Thread(target=run, daemon=True).start()
        yield f"127.0.0.1:{server.getsockname()[1]}"


@contextlib.contextmanager
def started(name: HostName, *endpoints: str, patience: str = QUICK) -> Iterator[HostClient]:
    """Start a host whose patience is short."""
    placement = Placement(
        n_ctx=512, n_gpu_layers=99, workers=endpoints, load_mode="none", n_threads=2, n_threads_batch=2
    )
    spec = HostSpec(name, LoadPlan(placement)).to_json()
    command = python_child.command("-c", patience + HOST, spec)
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as process:
        wait_for(name.socket.exists)
        client = HostClient(name.socket)
        yield client
        _, err = process.communicate(timeout=LIMIT)
    assert process.returncode == 0 or f"the worker at {endpoints[0]} has not responded for " in err


@contextlib.contextmanager
def loaded(name: HostName, endpoint: str) -> Iterator[HostClient]:
    """Start a host whose model is loaded, and held."""
    with started(name, endpoint, patience=SLOW) as client, contextlib.closing(client.attach(0)) as guest:
        next(state for state in guest if state.status == "ready")
        yield client


def two_listeners(stack: contextlib.ExitStack) -> tuple[list[socket.socket], list[str]]:
    """Return two sockets that listen, and their addresses."""
    servers = [stack.enter_context(socket.create_server(("127.0.0.1", 0))) for _ in range(2)]
    return servers, [f"127.0.0.1:{server.getsockname()[1]}" for server in servers]


def test_a_plan_and_a_probe_are_not_frozen_by_a_worker(frozen: str) -> None:
    placement = Placement(workers=(frozen,), repack=False).to_json()
    order = json.dumps({"path": "/dev/null", "placement": placement})
    probe = "from mixcli.llama.probe import main\nmain()"
    with ends_within():
        done = python_child.run("-c", QUICK + probe, seconds=2 * LIMIT, stdin=order)
    assert (done.code, done.last_words) == (
        6,
        f"the worker at {frozen} has not responded for 0 s: it hangs or its machine is down; restart `mixcli worker` there",
    )
    look = "from mixcli.llama.devices import main\nmain([sys.argv[1]])"
    with ends_within():
        done = python_child.run("-c", "import sys\n" + QUICK + look, frozen, seconds=2 * LIMIT)
    assert f"the worker at {frozen} has not responded" in done.out, done


@pytest.mark.slow
@pytest.mark.model
def test_a_load_is_not_frozen_by_a_worker(frozen: str, name: HostName) -> None:
    with started(name, frozen) as client:
        *_, last = client.attach(0)
    with pytest.raises(NotReachable, match=f"the worker at {frozen} has not responded for 0 s"):
        assert last.error is not None
        raise_error(last.error)


@pytest.mark.slow
@pytest.mark.model
def test_an_answer_is_not_frozen_by_a_worker(
    worker: tuple[str, "subprocess.Popen[bytes]"], name: HostName
) -> None:
    endpoint, process = worker
    with loaded(name, endpoint) as client:
        stream = client.chat(ChatBody(whole=LONG))
        next(delta for delta in stream if delta.text)
        os.kill(process.pid, signal.SIGSTOP)
        with pytest.raises(ModelDied):
            list(stream)


@pytest.mark.slow
@pytest.mark.model
def test_the_routing_of_an_answer_is_not_frozen_by_a_worker(
    worker: tuple[str, "subprocess.Popen[bytes]"], name: HostName
) -> None:
    """It is computed in another thread and another context than answers are."""
    endpoint, process = worker
    told = [ChatTurn("user", "Hi"), ChatTurn("assistant", "Hello, how are you?")]
    with loaded(name, endpoint) as client:
        assert client.experts(told).n_expert == 8
        os.kill(process.pid, signal.SIGSTOP)
        with pytest.raises(ModelDied):
            client.experts(told)


@pytest.mark.slow
@pytest.mark.model
def test_a_worker_that_is_killed_while_it_answers_is_named(
    worker: tuple[str, "subprocess.Popen[bytes]"], name: HostName
) -> None:
    endpoint, process = worker
    placement = Placement(
        n_ctx=512, n_gpu_layers=99, workers=(endpoint,), load_mode="none", n_threads=1, n_threads_batch=1
    )
    host = connect(name, placement, 60)
    stream = host.client.chat(ChatBody(whole=LONG))
    next(delta for delta in stream if delta.text)
    process.kill()
    with pytest.raises(ModelDied):
        list(stream)
    assert host.cause_of_death().startswith(f"the worker at {endpoint} closed the connection: it crashed")
    host.release()


@pytest.mark.slow
@pytest.mark.model
def test_a_worker_that_is_killed_while_the_model_is_loaded_is_named(
    worker: tuple[str, "subprocess.Popen[bytes]"], name: HostName
) -> None:
    """The second of two, when some of the weights have come: the first is not blamed."""
    endpoint, process = worker
    port = free_port()
    with start_worker(port) as other:
        try:
            with slow_relay(
                int(endpoint.split(":")[1]), trap=lambda n: n > 1 << 20 and process.kill()
            ) as relay:
                lost = f"127.0.0.1:{relay}"
                with started(name, f"127.0.0.1:{port}", lost, patience=PATIENCE.format(LIMIT)) as client:
                    *_, last = client.attach(0)
        finally:
            other.kill()
    assert last.error is not None
    with pytest.raises(NotReachable, match=f"^the worker at {lost} closed the connection: it crashed"):
        raise_error(last.error)


@pytest.mark.skipif(sys.platform != "linux", reason="needs TCP_INFO")
def test_only_the_worker_that_was_asked_last_is_blamed_and_only_when_it_is_silent(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(worker_watch, "POLL_INTERVAL", 0.02)
    found: list[NotReachable] = []
    with contextlib.ExitStack() as stack:
        servers, places = two_listeners(stack)
        watch = worker_watch.WorkerWatch(places, found.append)
        with watch.waiting(1.0):
            time.sleep(1.5)
            assert not found, "nobody is connected yet"
            clients = [stack.enter_context(socket.create_connection(one.getsockname())) for one in servers]
            for number in range(50):
                clients[number % 2].sendall(b"x")
                time.sleep(0.03)
            assert not found, "bytes go all the time"
            clients[0].sendall(b"x")
            wait_for(lambda: found)
        assert str(found[0]).startswith(f"the worker at {places[0]} has not responded for 1 s")


def test_a_machine_whose_system_is_silent_is_blamed_before_one_that_computes() -> None:
    """`acked_ago` grows where nothing confirms what is sent, keep-alive probes included; bytes alone say less."""
    watch = worker_watch.WorkerWatch(["a:1", "b:2"], lambda _: None)
    watch._silent = 46.0
    busy, off = Traffic(5, 1, 900), Traffic(5, 46_000, 46_000)
    assert "machine of the worker b:2" in str(watch._given_up({"a:1": busy, "b:2": off}, 600.0))
    assert watch._given_up({"a:1": busy, "b:2": busy}, 600.0) is None
    watch._silent = 2.0  # the first look after an idle hour: the answer is on its way
    assert watch._given_up({"a:1": busy, "b:2": Traffic(5, 1, 3_600_000)}, 600.0) is None


@pytest.mark.skipif(sys.platform != "linux", reason="needs TCP_INFO")
def test_a_connection_is_asked_for_when_idle_and_its_end_is_seen() -> None:
    with contextlib.ExitStack() as stack:
        servers, names = two_listeners(stack)
        places = places_of(names)
        assert ended(places) == names, "nothing is connected yet"
        clients = [stack.enter_context(socket.create_connection(one.getsockname())) for one in servers]
        there = [stack.enter_context(server.accept()[0]) for server in servers]
        assert ended(places) == []
        assert set(traffic(places) or {}) == set(names)
        assert all(client.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE) for client in clients)
        there[0].close()
        assert ended(places) == names[:1]
        clients[1].sendall(b"x")
        there[1].setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        there[1].close()  # with a reset, as of a process that was killed
        assert ended(places) == names
