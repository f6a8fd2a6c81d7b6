"""Requests that are too large, too heavy or too many: each gets its sentence, and an answer that streams meanwhile goes on."""

import asyncio
import json
import re
import socket
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from mixcli.client.process import Host
from mixcli.host.intake import Intake
from mixcli.host.protocol.messages import ChatBody
from profiles.placement import Placement
from tests.mixcli.host.test_host import LONG, QUESTION, ask, raw
from tests.support.hosts import held_for_a_file
from tests.support.traces import CAPITAL
from tests.support.waiting import LIMIT, wait_for

pytestmark = pytest.mark.model

PLACEMENT = Placement(n_ctx=2048, n_threads=1, n_threads_batch=1)
CHAT = "/v1/chat/completions"


@pytest.fixture(scope="module")
def host(tmp_path_factory: pytest.TempPathFactory, demo_path: Callable[[str], Path]) -> Iterator[Host]:
    with held_for_a_file(tmp_path_factory, demo_path, PLACEMENT) as host:
        yield host


class Stream:
    """A long answer that is read in a thread; `longest` is its longest silence in seconds."""

    def __init__(self, host: Host) -> None:
        self.longest, self.n = 0.0, 0
        self._answer = host.client.chat(
            ChatBody(whole={**LONG, "max_tokens": 1200, "logit_bias": {"2": -100}})
        )
        for delta in self._answer:
            if delta.text:
                break
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._read)
        self._thread.start()

    def _read(self) -> None:
        last = time.monotonic()
        for _ in self._answer:
            now = time.monotonic()
            self.longest, last = max(self.longest, now - last), now
            self.n += 1
            if self._over.is_set():
                return

    def __enter__(self) -> "Stream":
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._thread.join(LIMIT)
        self._answer.close()
        assert not self._thread.is_alive()


def post(host: Host, target: str, body: dict[str, Any]) -> tuple[int, dict[str, Any]]:
    return raw(host.name.socket, "POST", target, json.dumps(body).encode())


def peak(host: Host) -> int:
    """Bytes that the host had in memory at most."""
    status = Path(f"/proc/{host.pid}/status").read_text()
    return int(next(line.split()[1] for line in status.splitlines() if line.startswith("VmHWM"))) * 1024


@pytest.mark.slow
def test_a_word_of_60_mb_is_refused_at_once_and_a_stream_goes_on(host: Host) -> None:
    before = peak(host)
    with Stream(host) as stream:
        began = time.monotonic()
        status, answer = post(host, CHAT, {"messages": [{"role": "user", "content": "x" * 60_000_000}]})
        seconds = time.monotonic() - began
        n = stream.n
    assert status == 400
    assert answer["error"]["code"] == "context_length_exceeded"
    assert answer["error"]["exit_code"] == 4
    assert "at least" in answer["error"]["message"]
    assert seconds < 60
    assert n > 0
    assert stream.longest < 10
    assert peak(host) - before < 900 << 20
    status, answer = post(
        host, CHAT, {**QUESTION, "structured_outputs": {"choice": ["no", "x" * 10_000_000]}}
    )
    assert (status, answer["error"]["exit_code"]) == (400, 4)
    huge = [{"role": "user", "content": "x" * 20_000_000}, {"role": "assistant", "content": "I see."}]
    status, answer = post(
        host, CHAT, {**QUESTION, "messages": [*huge, *QUESTION["messages"]], "on_overflow": "drop-oldest"}
    )
    assert (status, answer["dropped_messages"]) == (200, 2)
    assert CAPITAL.matches(answer["choices"][0]["message"]["content"])


def heavy_schema(n: int) -> dict[str, Any]:
    return {
        "type": "object",
        "properties": {
            f"field_{i}": {"type": "string", "pattern": f"[a-z]{{1,{i % 40 + 1}}}@x{i}"} for i in range(n)
        },
    }


@pytest.mark.slow
def test_what_is_prepared_does_not_hold_up_what_streams(host: Host) -> None:
    with Stream(host) as stream:
        text = "".join(chr(97 + i * i % 23) for i in range(1_000_000))
        assert post(host, "/tokenize", {"prompt": text})[0] == 200
        status, answer = post(host, "/tokenize", {"prompt": "x " * 3_000_000})
        assert status == 400
        assert "6,000,000 characters long; the limit for one count is 2,097,152" in answer["error"]["message"]
        body = {
            **QUESTION,
            "max_tokens": 2,
            "response_format": {"type": "json_schema", "json_schema": {"schema": heavy_schema(400)}},
        }
        status, _ = post(host, CHAT, body)
        assert status in (200, 400)
        assert CAPITAL.matches(ask(host, QUESTION))
    assert stream.longest < 10, "seconds of silence"


def test_who_leaves_while_a_request_is_prepared_takes_nobody_along(host: Host) -> None:
    text = json.dumps({"prompt": "".join(chr(97 + i * i % 23) for i in range(1_000_000))}).encode()
    chat = json.dumps({"messages": [{"role": "user", "content": "word " * 30_000}]}).encode()
    for target, body in [
        ("/tokenize", text),
        (CHAT, chat),
        ("/tokenize", b'{"prompt": "a"}'),
        (CHAT, json.dumps(QUESTION).encode()),
    ] * 3:
        with socket.socket(socket.AF_UNIX) as gone:
            gone.connect(str(host.name.socket))
            head = f"POST {target} HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n"
            gone.sendall(head.encode() + body)
    assert CAPITAL.matches(ask(host, QUESTION))
    wait_for(lambda: host.client.health().busy <= 1)


@pytest.mark.slow
def test_bodies_are_bounded_one_by_one_and_together(monkeypatch: pytest.MonkeyPatch) -> None:
    """In process: 413 for one that is too long, announced or not; 503 while too much is held; and all is given back."""
    release = asyncio.Event()

    async def app(_scope: Any, receive: Any, send: Any) -> None:
        more = True
        while more:
            more = (await receive()).get("more_body", False)
        await release.wait()
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b""})

    async def request(intake: Intake, *parts: bytes, length: int | None = None, whole: bool = True) -> int:
        todo = [{"type": "http.request", "body": part, "more_body": True} for part in parts]
        todo[-1]["more_body"] = not whole
        sent: list[Any] = []

        async def receive() -> Any:
            await asyncio.sleep(0 if todo else 60)
            return todo.pop(0)

        async def send(message: Any) -> None:
            sent.append(message)

        headers = [] if length is None else [(b"content-length", str(length).encode())]
        await intake({"type": "http", "path": "/v1/chat/completions", "headers": headers}, receive, send)
        if sent[0]["status"] != 200:
            message = json.loads(sent[1]["body"])["error"]["message"]
            held = re.search(r"hold ([0-9,]+) bytes; the limit is 150;", message)
            assert (held is not None and int(held[1]) > 150) == (sent[0]["status"] == 503), message
        return int(sent[0]["status"])

    async def scenario() -> None:
        intake = Intake(app, max_body=100, max_held=150)
        assert await request(intake, b"", length=101) == 413
        assert await request(intake, b"x" * 60, b"x" * 41) == 413
        held = asyncio.create_task(request(intake, b"x" * 50, b"x" * 50))
        async with asyncio.timeout(LIMIT):
            while intake._n_held < 100:
                await asyncio.sleep(0)
        assert await request(intake, b"x", length=51) == 503
        assert await request(intake, b"x" * 30, b"x" * 30) == 503
        release.set()
        assert await held == 200
        for _ in range(10):
            assert await request(intake, b"x" * 100) == 200
        monkeypatch.setattr("mixcli.host.intake.WHOLE_BODY", 0.05)
        halves = [request(intake, b"x" * 75, whole=False) for _ in range(2)]
        assert await asyncio.gather(*halves) == [408, 408], "a client that stops in the middle is given up"
        assert await request(intake, b"x" * 100) == 200

    asyncio.run(scenario())
