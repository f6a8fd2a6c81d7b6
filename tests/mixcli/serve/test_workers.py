"""Models that are too large for this machine alone behind a port: a worker that dies and returns, and two models that want the same one."""

import http.client
import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from mixcli.store.headers import header_of, shape_of
from mixcli.system.hardware import this_machine
from profiles.planner import PlanRequest, plan
from tests.support.llama_workers import free_port, start_worker
from tests.support.served import Served
from tests.support.synthetic import resized, shape_named, write_model
from tests.support.waiting import wait_for

CHAT = "/v1/chat/completions"
SHORT = {"messages": [{"role": "user", "content": "Hi"}], "max_tokens": 2}
LONG = {**SHORT, "max_tokens": 400, "stream": True, "ignore_eos": True}
N_CTX = 512
MISSING = 16 << 20  # bytes of main memory

pytestmark = pytest.mark.slow


def wide_model(path: Path, seed: int = 0) -> Path:
    """Write a model of one layer with 50 MB of weights, most of them of experts."""
    return write_model(path, resized(shape_named("mid", 1), 512, 4096), seed=seed)


def served(port: int, model: Path, *others: Path) -> Served:
    """Serve models with a worker, in main memory that is too small for any of them."""
    shape = shape_of(header_of([model]))
    alone = plan(shape, replace(this_machine(), gpus=()), PlanRequest(n_ctx=N_CTX, n_ubatch=128))
    more = [word for other in others for word in ("-m", str(other))]
    budget = ("--ram", str(alone.ledger[-1].need - MISSING), "--worker", f"127.0.0.1:{port}")
    return Served("--port", "0", *more, *budget, n_ctx=N_CTX, model=str(model))


def events(port: int, body: object) -> Iterator[str]:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=120)
    connection.request("POST", CHAT, json.dumps(body), {"Content-Type": "application/json"})
    with connection.getresponse() as response:
        for line in response:
            if line.startswith(b"data: "):
                yield line[6:].decode().strip()
    connection.close()


def test_a_worker_that_dies_is_named_and_the_model_is_loaded_again_when_it_is_back(
    tmp_path: Path,
) -> None:
    port = free_port()
    endpoint = f"127.0.0.1:{port}"
    worker = start_worker(port)
    server = served(port, wide_model(tmp_path / "wide.gguf"))
    try:
        stream = events(server.port, LONG)
        next(stream)
        worker.kill()
        worker.wait()
        *_, last = stream
        error = json.loads(last)["error"]
        assert f"(the worker at {endpoint} closed the connection: it crashed" in error["message"]
        assert error["type"] == "server_error"
        for _ in range(2):  # the second one is refused without another look
            status, answer = server.ask("POST", CHAT, SHORT)
            assert status == 503
            assert f"no worker at {endpoint}" in answer["error"]["message"]
        worker = start_worker(port)
        wait_for(lambda: server.ask("POST", CHAT, SHORT)[0] == 200)
    finally:
        code, said = server.end()
        worker.kill()
        worker.wait()
    assert code == 0
    assert said.count("restarting it") == 1


def test_two_models_take_turns_with_a_worker(tmp_path: Path) -> None:
    port = free_port()
    worker = start_worker(port)
    server = served(port, *(wide_model(tmp_path / f"{seed}.gguf", seed) for seed in (1, 2)))
    try:
        assert f"are loaded one after the other: both use the worker 127.0.0.1:{port}" in server.said
        for seed in (2, 1):
            body = {**SHORT, "model": str(tmp_path / f"{seed}.gguf")}
            status, answer = server.ask("POST", CHAT, body)
            assert status == 200, answer
    finally:
        code, _ = server.end()
        worker.kill()
        worker.wait()
    assert code == 0
