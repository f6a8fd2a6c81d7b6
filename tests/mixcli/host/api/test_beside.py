"""What is computed beside the engine ends with its client, and is bounded."""

import asyncio
import json
from typing import Any

import pytest

from mixcli.engine.faults import Abandoned
from mixcli.host.api.answering import GONE
from mixcli.host.api.app import create_app
from mixcli.host.protocol.paths import COMPLETIONS, EXPERTS
from tests.support.app import App

SCORED = {"prompt": ["Hello, world"] * 20, "echo": True, "logprobs": 5, "max_tokens": 0}


def left(app: App, path: str, body: object) -> int:
    """Send a request and leave at once; return the status that the host notes."""

    async def ask() -> int:
        raw = json.dumps(body).encode()
        messages: list[dict[str, Any]] = [{"type": "http.request", "body": raw, "more_body": False}]
        sent: list[Any] = []

        async def receive() -> dict[str, Any]:
            return messages.pop() if messages else {"type": "http.disconnect"}

        async def send(message: Any) -> None:
            sent.append(message)

        scope = {
            "type": "http", "asgi": {"version": "3.0", "spec_version": "2.3"}, "http_version": "1.1", "method": "POST",
            "path": path, "raw_path": path.encode(), "query_string": b"", "root_path": "", "scheme": "http",
            "headers": [(b"content-type", b"application/json")], "server": ("localhost", 80), "client": None,
        }  # fmt: skip
        await create_app(app.state)(scope, receive, send)
        return int(sent[0]["status"])

    status: int = app._do(ask())
    return status


@pytest.mark.parametrize(
    ("path", "body"),
    [
        (COMPLETIONS, SCORED),
        (EXPERTS, {"messages": [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Hello"}]}),
    ],
)  # fmt: skip
def test_a_client_that_leaves_lets_the_next_one_have_the_place(tiny: App, path: str, body: object) -> None:
    assert left(tiny, path, body) == GONE
    assert tiny.post(COMPLETIONS, {**SCORED, "prompt": "Hi"}).status_code == 200
    assert tiny.state.keep_alive.busy == 0


def test_a_computation_looks_whether_it_is_over(tiny: App) -> None:
    looks = iter([False, False, True])
    tokens = [5] * 250
    with pytest.raises(Abandoned):
        tiny.state.engine.compute_beside(
            lambda model: model.prompt_logprobs(tokens * 2, 0, lambda: next(looks))
        ).result(60)
    assert not list(looks)


def test_a_request_that_waits_for_its_turn_is_dropped_when_its_client_leaves(tiny: App) -> None:
    go = asyncio.run_coroutine_threadsafe(_event(), tiny._loop).result(60)
    first = tiny.state.engine.compute_beside(
        lambda _: asyncio.run_coroutine_threadsafe(go.wait(), tiny._loop).result(60)
    )
    assert left(tiny, COMPLETIONS, SCORED) == GONE
    tiny._loop.call_soon_threadsafe(go.set)
    assert first.result(60)
    assert tiny.state.engine.compute_beside(lambda _: "next").result(60) == "next"


async def _event() -> asyncio.Event:
    return asyncio.Event()


def test_log_probabilities_of_prompts_are_bounded(tiny: App) -> None:
    body = {"prompt": [[5] * 250] * 256, "echo": True, "logprobs": 20, "max_tokens": 0}
    answer = tiny.post(COMPLETIONS, body)
    assert answer.status_code == 400
    error = answer.json()["error"]
    assert error["param"] == "logprobs"
    assert "the prompts have 1,344,000 log-probabilities; the limit is 1,048,576" in error["message"]
