"""Attaching to a host in the moment in which it goes: never an error, and no second one beside it."""

import asyncio
import socket
import subprocess
import sys
import threading
from pathlib import Path

from mixcli.client.process import attach
from mixcli.host.protocol.host_name import HostName
from mixcli.host.protocol.host_record import HostRecord
from mixcli.host.protocol.host_spec import HostSpec, LoadPlan
from mixcli.host.state import HostState
from mixcli.system.process_state import born
from profiles.placement import Placement
from tests.support.waiting import LIMIT

HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nConnection: close\r\n\r\n"


def named(folder: Path) -> HostName:
    path = folder / "model.gguf"
    path.write_bytes(b"a model")
    return HostName(path, "model", "{}")


def test_a_host_that_lets_a_client_in_and_ends_is_none(tmp_path: Path) -> None:
    """The client is there between two looks of a host whose time is over: its stream ends before the first state."""
    name = named(tmp_path)
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(str(name.socket))
        server.listen()

        def answer() -> None:
            peer, _ = server.accept()
            with peer:
                peer.recv(1 << 16)
                peer.sendall(HEAD + b"data: [DONE]\n\n")

        thread = threading.Thread(target=answer)
        thread.start()
        try:
            assert attach(name, 0.0) is None
        finally:
            thread.join()
            name.socket.unlink()


def test_a_host_that_is_shutting_down_has_ended_before_the_next_one_is_planned(tmp_path: Path) -> None:
    name = named(tmp_path)
    with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as former:
        record = HostRecord(former.pid, born(former.pid), str(name.socket), "model", str(name.path))
        record.write()
        found: list[object] = []
        waiting = threading.Thread(target=lambda: found.append(attach(name, 0.0)))
        waiting.start()
        waiting.join(0.2)
        assert waiting.is_alive(), "its memory is not free yet"
        former.communicate(b"\n")
        waiting.join(LIMIT)
    assert found == [None]


def test_a_client_that_comes_in_the_last_moment_keeps_the_host(tmp_path: Path) -> None:
    """In whichever round of the event loop it comes: either the host is gone by then, or it stays for as long as the client does."""

    async def comes_after(n_rounds: int) -> None:
        state = HostState(HostSpec(named(tmp_path), LoadPlan(Placement(n_ctx=256))))
        unwanted = asyncio.create_task(state.wait_until_unwanted())
        with state.keep_alive.client(0.0):
            await asyncio.sleep(0.01)
        for _ in range(n_rounds):
            await asyncio.sleep(0)
        if unwanted.done():
            return
        with state.keep_alive.client(0.0):
            for _ in range(50):
                await asyncio.sleep(0)
            assert not unwanted.done(), n_rounds
        await asyncio.wait_for(unwanted, LIMIT)

    for n_rounds in range(12):
        asyncio.run(comes_after(n_rounds))
