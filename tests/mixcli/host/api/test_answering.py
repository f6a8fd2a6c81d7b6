"""Answers that have to wait, without a model: comments keep a stream alive, and an error has a status of its own until then."""

import asyncio
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import httpx2
import pytest
from fastapi import FastAPI

from mixcli.host.api.app import create_app
from mixcli.host.loop import ENDED
from mixcli.host.protocol.host_name import HostName
from mixcli.host.protocol.host_spec import HostSpec, LoadPlan
from mixcli.host.protocol.paths import CHAT
from mixcli.host.state import HostState
from profiles.placement import Placement
from tests.support.app import App
from tests.support.waiting import LIMIT

QUESTION = {"messages": [{"role": "user", "content": "Hi"}]}


async def answer(home: Path, body: Mapping[str, Any], seconds: float) -> httpx2.Response:
    """Ask a host that is still loading, and end its requests some seconds after they came."""
    path = home / "model.gguf"
    home.mkdir(exist_ok=True)
    path.write_bytes(b"")
    state = HostState(HostSpec(HostName(path, "model", "{}"), LoadPlan(Placement(n_ctx=256))))
    transport = httpx2.ASGITransport(create_app(state))

    async def end() -> None:
        async with asyncio.timeout(LIMIT):
            while not state.engine._asked:
                await asyncio.sleep(0.001)
        await asyncio.sleep(seconds)
        state.engine.end_requests()

    try:
        async with httpx2.AsyncClient(transport=transport, base_url="http://host") as client:
            await client.post("/v1/chat/completions", json={})  # what only a first request does is no waiting
            _, response = await asyncio.gather(end(), client.post("/v1/chat/completions", json=body))
            return response
    finally:
        state.engine.close(0)


@pytest.mark.parametrize("stream", [False, True])
def test_an_error_soon_has_a_status(home: Path, stream: bool) -> None:
    response = asyncio.run(answer(home, {**QUESTION, "stream": stream}, 0.05))
    assert (response.status_code, response.json()["error"]["message"]) == (503, ENDED)


def test_a_stream_that_waits_begins_with_comments_and_an_error_ends_it(
    home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("mixcli.host.api.answering.BEAT", 0.02)
    response = asyncio.run(answer(home, {**QUESTION, "stream": True}, 1.0))
    assert response.status_code == 200
    assert response.headers["content-type"].startswith("text/event-stream")
    first, *_, error, done, rest = response.text.split("\n\n")
    assert (first, done, rest) == (": alive", "data: [DONE]", "")
    assert json.loads(error.removeprefix("data: "))["error"]["message"] == ENDED
    assert response.text.count(": alive") > 3


def test_a_whole_answer_that_waits_keeps_its_status(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("mixcli.host.api.answering.BEAT", 0.02)
    assert asyncio.run(answer(home, QUESTION, 1.0)).status_code == 503


def test_the_events_of_an_output_leave_in_one_piece_and_the_last_ones_with_the_end(tiny: App) -> None:
    body = {**QUESTION, "stream": True, "max_tokens": 1, "stream_options": {"include_usage": True}}
    pieces = tiny._do(_pieces(create_app(tiny.state), json.dumps(body).encode()))
    (piece,) = (piece for piece in pieces if piece)
    assert piece.count(b"data: ") >= 4 and piece.endswith(b"data: [DONE]\n\n")


async def _pieces(app: FastAPI, body: bytes) -> list[bytes]:
    """Return the pieces of the body that answers a chat."""
    pieces: list[bytes] = []
    asked = iter([{"type": "http.request", "body": body, "more_body": False}])

    async def receive() -> Any:
        return next(asked, None) or await asyncio.Event().wait()

    async def send(message: Any) -> None:
        pieces.append(message.get("body", b""))

    headers = [(b"content-type", b"application/json")]
    scope = {"type": "http", "method": "POST", "path": CHAT, "headers": headers, "query_string": b""}
    await app(scope, receive, send)
    return pieces
