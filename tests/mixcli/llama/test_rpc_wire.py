"""The protocol's version of a worker, and the way to it, before llama.cpp connects."""

import contextlib
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator

import pytest

from mixcli.errors import NotReachable, UsageError
from mixcli.llama import rpc_wire
from mixcli.llama.rpc_wire import PROTOCOL, distinct, greeted, measured_path
from mixcli.system.hardware import RESERVE_WORKER, memory_total, this_machine
from tests.support.llama_workers import free_port, start_worker
from tests.support.slow_relay import slow_relay

DELAY = 0.02  # seconds on each way through the relay


@contextlib.contextmanager
def answering(*parts: bytes, pause: float = 0.0) -> Iterator[str]:
    """Answer what comes to an address with these parts, each sent alone after a pause in seconds, and then end the connection."""
    with socket.create_server(("127.0.0.1", 0)) as server:

        def run() -> None:
            connection, _ = server.accept()
            with connection, contextlib.suppress(OSError):  # the other end may have left
                connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                connection.recv(64)
                for part in parts:
                    time.sleep(pause)
                    connection.sendall(part)

        thread = threading.Thread(target=run, daemon=True)
        thread.start()
        yield f"127.0.0.1:{server.getsockname()[1]}"
        thread.join()


def greeting(*version: int) -> bytes:
    return (28).to_bytes(8, "little") + bytes(version) + bytes(25)


@pytest.mark.slow
def test_the_version_is_that_of_the_library_and_a_longer_way_is_measured_longer() -> None:
    port = free_port()
    with start_worker(port) as worker:
        try:
            with greeted(f"127.0.0.1:{port}") as wire:  # raises where PROTOCOL is not the library's
                assert wire.count_devices() == 1
            near = measured_path(f"127.0.0.1:{port}")
            (lent,) = this_machine((f"127.0.0.1:{port}",)).gpus
            with slow_relay(port, DELAY) as relay:
                far = measured_path(f"127.0.0.1:{relay}")
        finally:
            worker.kill()
    assert far.round_trip >= 2 * DELAY
    assert 0 < lent.bytes_free + RESERVE_WORKER < memory_total()  # what is free, not all memory, as ggml says
    assert near.round_trip > 0
    assert near.gbs > 0
    assert far.gbs > 0


@pytest.mark.parametrize("version", [(7, 0, 1), (7, 1, 0), (6, 0, 0), (8, 0, 0)])
def test_another_version_is_refused_with_both(version: tuple[int, int, int]) -> None:
    """llama.cpp itself takes an older minor version, and any patch version, which counts the operations."""
    said = greeting(*version)
    with (
        answering(said[:3], said[3:9], said[9:]) as endpoint,
        pytest.raises(NotReachable, match=r"install the same version") as failed,
        greeted(endpoint),
    ):
        pass
    for one in (version, PROTOCOL):
        assert ".".join(map(str, one)) in str(failed.value)


@pytest.mark.parametrize(
    "said", [b"SSH-2.0-OpenSSH_9.2\r\n", b"HTTP/1.1 400 Bad Request\r\n\r\n", b"\0" * 40]
)
def test_another_service_is_no_worker(said: bytes) -> None:
    with (
        answering(said) as endpoint,
        pytest.raises(NotReachable, match=f"{endpoint} is not a mixcli worker"),
        greeted(endpoint),
    ):
        pass


def test_a_worker_that_leaves_while_it_is_measured_is_named() -> None:
    with (
        answering(greeting(*PROTOCOL)) as endpoint,
        pytest.raises(NotReachable, match=f"the worker at {endpoint} closed the connection while"),
    ):
        measured_path(endpoint)


def test_a_worker_whose_answer_drips_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each byte comes in time, the whole answer does not."""
    monkeypatch.setattr(rpc_wire, "HANDSHAKE", 0.2)
    said = greeting(*PROTOCOL)
    with (
        answering(*(bytes([byte]) for byte in said), pause=0.05) as endpoint,
        pytest.raises(NotReachable, match="did not respond within"),
        greeted(endpoint),
    ):
        pass


HOLDER = """
import socket, sys
with socket.create_connection(("127.0.0.1", int(sys.argv[1]))) as connection:
    sys.stdout.write("connected\\n")
    sys.stdout.flush()
    sys.stdin.read()
"""


@pytest.mark.skipif(sys.platform != "linux", reason="needs /proc/net/tcp")
def test_who_holds_a_worker_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rpc_wire, "HANDSHAKE", 0.2)
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        with (
            pytest.raises(NotReachable, match="accepts connections but did not respond"),
            greeted(f"127.0.0.1:{port}"),
        ):
            pass
        server.accept()[0].close()  # that client has left
        command = [sys.executable, "-c", HOLDER, str(port)]
        with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as holder:
            assert holder.stdout is not None
            holder.stdout.readline()
            held = server.accept()[0]
            said = rf"serves another client \(a worker serves one at a time\): process {holder.pid} \({sys.executable} -c "
            with pytest.raises(NotReachable, match=said), greeted(f"127.0.0.1:{port}"):
                pass
            held.close()


def test_two_names_of_one_worker_are_seen() -> None:
    assert distinct(["127.0.0.1:1", "127.0.0.1:2"]) == ["127.0.0.1:1", "127.0.0.1:2"]
    with pytest.raises(UsageError, match=r"localhost:1 and 127.0.0.1:1 are the same worker"):
        distinct(["localhost:1", "127.0.0.1:1"])


def test_a_host_name_that_is_not_there_is_named() -> None:
    with pytest.raises(NotReachable, match=r"worker nowhere.invalid:50052 cannot be resolved"):
        distinct(["nowhere.invalid:50052"])
