"""Clients that do everything wrong, at a server that goes on serving another one: descriptors, memory and slots are flat afterwards."""

import contextlib
import json
import socket
import threading
import time
from collections import Counter
from collections.abc import Callable

import pytest

from mixcli.client.process import hosts
from tests.mixcli.serve.test_kills import open_files, resident
from tests.support.served import Served
from tests.support.waiting import wait_for

HELLO = {"messages": [{"role": "user", "content": "Hi"}], "max_tokens": 4}
STREAM = {**HELLO, "max_tokens": 400, "stream": True, "ignore_eos": True}
CHAT = "/v1/chat/completions"
SLOWEST = 60.0  # seconds that a short question may take beside all this, on busy cores


def request(body: bytes, *, host: str = "localhost", length: int | None = None) -> bytes:
    n = len(body) if length is None else length
    head = f"POST {CHAT} HTTP/1.1\r\nHost: {host}\r\nContent-Type: application/json\r\nContent-Length: {n}\r\n\r\n"
    return head.encode() + body


class Faults:
    """The faulty clients of one server."""

    def __init__(self, port: int) -> None:
        self.port = port

    def connect(self) -> socket.socket:
        return socket.create_connection(("127.0.0.1", self.port), 60)

    def disconnects(self) -> None:
        for n in range(50):
            with self.connect() as client:
                client.sendall(request(json.dumps(STREAM).encode()))
                assert client.recv(1 << 12).startswith(b"HTTP/1.1 200")
                for _ in range(n % 3):
                    client.recv(1 << 12)

    def half_open(self) -> None:
        whole = request(b"{" * 100)
        clients = []
        for n in range(1000):
            client = self.connect()
            clients.append(client)
            with contextlib.suppress(ConnectionError):
                client.sendall(whole[: (n * 7) % len(whole)])
        for client in clients:
            client.close()

    def words_of_60_mb(self) -> None:
        for text in ("x" * 60_000_000, "word " * 12_000_000):
            with self.connect() as client:
                client.sendall(
                    request(json.dumps({"messages": [{"role": "user", "content": text}]}).encode())
                )
                assert client.recv(1 << 12).startswith(b"HTTP/1.1 400")

    def invalid_bytes(self) -> None:
        for raw in (
            b"\xff\xfe{}",
            b'{"messages": "\xff"}',
            b"\x00" * 5000,
            b"{" * 5000,
            b"[" * 5000,
            b'"' + b"\\" * 4999,
        ):
            for _ in range(10):
                with self.connect() as client:
                    client.sendall(request(raw))
                    assert client.recv(1 << 12).startswith(b"HTTP/1.1 400")
        for raw in (b"\xff" * 500, b"\x16\x03\x01" + b"\x00" * 200):
            for _ in range(10):
                with self.connect() as client:
                    client.sendall(raw + b"\r\n\r\n")
                    assert client.recv(1 << 12).startswith(b"HTTP/1.1 400")

    def wrong_hosts(self) -> None:
        for n in range(300):
            with self.connect() as client:
                client.sendall(request(json.dumps(HELLO).encode(), host=f"host-{n}.example"))
                assert client.recv(1 << 12).startswith(b"HTTP/1.1 403")


class Other:
    """A client without faults, all the while; `ends` counts its answers by status, `slowest` is in seconds."""

    def __init__(self, ask: Callable[..., tuple[int, object]]) -> None:
        self.ends: Counter[int] = Counter()
        self.slowest = 0.0
        self._ask, self._over = ask, threading.Event()
        self._thread = threading.Thread(target=self._run)
        self._thread.start()

    def stop(self) -> None:
        self._over.set()
        self._thread.join(60)

    def _run(self) -> None:
        while not self._over.is_set():
            began = time.monotonic()
            self.ends[self._ask("POST", CHAT, HELLO)[0]] += 1
            self.slowest = max(self.slowest, time.monotonic() - began)


@pytest.mark.slow
def test_faulty_clients_cost_nothing_and_keep_nobody_out(served_tiny: Served) -> None:
    faults, (host,) = Faults(served_tiny.port), hosts()
    kinds = (
        faults.disconnects,
        faults.half_open,
        faults.words_of_60_mb,
        faults.invalid_bytes,
        faults.wrong_hosts,
    )
    processes = (served_tiny.process.pid, host.pid)
    for kind in kinds:  # what is allocated once
        kind()

    def is_quiet() -> bool:
        health = served_tiny.ask("GET", "/health")[1]
        return (health["n_running"], health["n_waiting"]) == (0, 0)

    wait_for(is_quiet)
    files, memory = [open_files(pid) for pid in processes], [resident(pid) for pid in processes]
    other = Other(served_tiny.ask)
    try:
        for kind in kinds:
            before = sum(other.ends.values())
            kind()
            wait_for(lambda before=before: sum(other.ends.values()) > before)
    finally:
        other.stop()
    assert set(other.ends) == {200}, other.ends
    assert other.slowest < SLOWEST
    wait_for(is_quiet)
    for pid, n_files, n_bytes in zip(processes, files, memory, strict=True):
        wait_for(lambda pid=pid, n=n_files: open_files(pid) <= n + 2)
        assert resident(pid) < 1.15 * n_bytes + (8 << 20)
    assert [one.pid for one in hosts()] == [host.pid]
    code, err = served_tiny.end()
    assert (code, "Traceback" in err) == (0, False), err
