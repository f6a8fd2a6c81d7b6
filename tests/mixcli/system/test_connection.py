"""Clients that stop reading their answer: a real server on a unix socket, and answers without an end."""

import asyncio
import contextlib
import socket
import threading
import time
from collections.abc import AsyncGenerator, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest
import uvicorn
import uvloop
from fastapi import FastAPI
from fastapi.responses import StreamingResponse

import mixcli.serve.connection
from mixcli.system.connection import PatientConnection
from tests.support.waiting import LIMIT, wait_for

PATIENCE = 1.0  # seconds
PIECE = b"data: " + b"x" * 10_000 + b"\n\n"


@dataclass
class Server:
    """A server whose /SIZE sends so many pieces, 0 for no end; it counts those that were made, and the answers that run."""

    path: Path
    n_made: int = 0
    n_running: int = 0
    running: uvicorn.Server = field(init=False)

    def app(self) -> FastAPI:
        app = FastAPI()

        async def pieces(size: int) -> AsyncGenerator[bytes, None]:
            self.n_running += 1
            try:
                left = size or -1
                while left:
                    yield PIECE
                    self.n_made += 1
                    left -= 1
                    await asyncio.sleep(0)
            finally:
                self.n_running -= 1

        @app.get("/{size}")
        async def answer(size: int) -> StreamingResponse:
            return StreamingResponse(pieces(size))

        @app.get("/whole/{size}")
        async def whole(size: int) -> bytes:
            return PIECE * size

        return app

    def client(self, target: str) -> socket.socket:
        sock = socket.socket(socket.AF_UNIX)
        sock.connect(str(self.path))
        sock.sendall(f"GET /{target} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n".encode())
        return sock

    @property
    def n_connections(self) -> int:
        return len(self.running.server_state.connections)


@pytest.fixture(
    params=[(PatientConnection, asyncio.run), (mixcli.serve.connection.GateConnection, uvloop.run)],
    ids=["host", "serve"],
)
def server(
    tmp_path: Path, request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Server]:
    connection, run = request.param  # with the event loop of each program
    monkeypatch.setattr(connection, "patience", PATIENCE)
    server = Server(tmp_path / "socket")
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(server.path))
        config = uvicorn.Config(server.app(), log_level="error", lifespan="off", http=connection)
        server.running = uvicorn.Server(config)
        thread = threading.Thread(target=lambda: run(server.running.serve([listener])))
        thread.start()
        wait_for(lambda: server.running.started)
        yield server
        server.running.should_exit = True
        thread.join(LIMIT)


def test_a_client_that_stops_reading_is_hung_up_on(server: Server) -> None:
    with server.client("0") as one, server.client("0") as other:
        assert one.recv(100).startswith(b"HTTP/1.1 200")
        wait_for(lambda: server.n_running == 2)
        wait_for(lambda: server.n_running == 0)
        wait_for(lambda: server.n_connections == 0)
        assert server.n_made * len(PIECE) < 4 << 20, "the rest was not even made"
        other.settimeout(LIMIT)
        with contextlib.suppress(ConnectionResetError):
            while other.recv(1 << 20):
                pass


def test_an_answer_that_is_made_and_never_read_goes_too(server: Server) -> None:
    with server.client("whole/100") as client:
        assert client.recv(100).startswith(b"HTTP/1.1 200")
        wait_for(lambda: server.n_connections == 0)


@pytest.mark.parametrize("target", ["150", "whole/150"])
def test_a_client_that_reads_slowly_gets_all(server: Server, target: str) -> None:
    with server.client(target) as client:
        client.settimeout(LIMIT)
        n_bytes = 0
        while piece := client.recv(1 << 16):
            n_bytes += len(piece)
            time.sleep(0.06)
    assert n_bytes > 150 * len(PIECE)
    assert 0.06 * n_bytes / (1 << 16) > PATIENCE, (
        "it took longer than the patience with one that does not read"
    )
