"""What clients get while replicas are lost, with a scripted handle of Ray Serve in place of a cluster."""

import asyncio
import importlib.util
import json
from collections.abc import AsyncIterator
from typing import Any

import pytest

from mixcli.cluster.load_refused import LoadRefused, refused_load
from mixcli.cluster.messages import Begun, BodyPart, ClusterRequest, Part, Taken
from mixcli.cluster.replicas import Replicas
from mixcli.errors import DoesNotFit
from mixcli.host.protocol.paths import CHAT, HEALTH, MESSAGES
from mixcli.serve.cors import Cors
from mixcli.serve.gate import Gate
from mixcli.serve.limits import Limits
from mixcli.serve.proxy import Proxy

pytestmark = [
    pytest.mark.skipif(importlib.util.find_spec("ray") is None, reason="the extra ray is not installed"),
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),  # Ray Serve's own, when it is imported
]
EVENT = b'data: {"choices": []}\n\n'
STREAM = Begun(200, [(b"content-type", b"text/event-stream")])
ANSWER = [Taken("a"), Begun(200, [(b"content-type", b"application/json")]), BodyPart(b"{}", more=False)]
BODY = json.dumps({"messages": [{"role": "user", "content": "Hi"}]}).encode()


class Scripted:
    """A handle whose answers come from a list; an exception in one ends it. `keys` are the conversations that were asked for."""

    def __init__(self, *answers: list[Part | Exception]) -> None:
        self._answers = list(answers)
        self.keys: list[str] = []
        self.n_cancelled = 0

    def options(self, *, stream: bool, session_id: str) -> "Scripted":
        assert stream
        self.keys.append(session_id)
        return self

    @property
    def answer(self) -> "Scripted":
        return self

    def remote(self, request: ClusterRequest) -> "_Response":
        assert request.body == BODY
        return _Response(self, self._answers.pop(0))


class _Response:
    def __init__(self, handle: Scripted, parts: list[Part | Exception]) -> None:
        self._handle, self._parts = handle, iter(parts)

    def __aiter__(self) -> AsyncIterator[Part]:
        return self

    async def __anext__(self) -> Part:
        part = next(self._parts, None)
        if part is None:
            raise StopAsyncIteration
        if isinstance(part, Exception):
            raise part
        return part

    def cancel(self) -> None:
        self._handle.n_cancelled += 1


def lost() -> Exception:
    import ray.exceptions

    return ray.exceptions.ActorDiedError()


def ask(handle: Any, path: str = CHAT, method: str = "POST") -> tuple[int, bytes, bool]:
    """Return status and body of an answer through the gate, and whether it is whole."""
    sent: list[dict[str, Any]] = []

    async def run() -> None:
        replicas = Replicas()
        await replicas.open()
        if handle is not None:
            replicas.ready(handle)
        body = iter([{"type": "http.request", "body": BODY, "more_body": False}])

        async def receive() -> dict[str, Any]:
            return next(body, None) or await asyncio.get_running_loop().create_future()

        async def send(message: dict[str, Any]) -> None:
            sent.append(message)

        headers = [(b"host", b"localhost"), (b"content-type", b"application/json")]
        scope = {"type": "http", "method": method, "path": path, "headers": headers}
        await Proxy(Gate(frozenset({"localhost"}), None, Cors()), Limits(), replicas)(scope, receive, send)

    asyncio.run(run())
    bodies = [one for one in sent if one["type"] == "http.response.body"]
    return sent[0]["status"], b"".join(one["body"] for one in bodies), not bodies[-1]["more_body"]


def test_a_request_of_which_nothing_was_sent_is_given_to_another_replica_once() -> None:
    handle = Scripted([Taken("a"), lost()], ANSWER)
    assert ask(handle) == (200, b"{}", True)
    assert handle.keys[0] == handle.keys[1] != ""
    twice = Scripted([lost()], [Taken("b"), lost()], ANSWER)
    status, body, _ = ask(twice)
    assert (status, json.loads(body)["error"]["type"]) == (503, "server_error")
    assert "two replicas were lost" in body.decode()


@pytest.mark.parametrize(("path", "name"), [(CHAT, b""), (MESSAGES, b"event: error\n")])
def test_a_stream_that_began_ends_with_an_error_event_and_is_not_repeated(path: str, name: bytes) -> None:
    handle = Scripted([Taken("a"), STREAM, BodyPart(EVENT, more=True), lost()], ANSWER)
    status, body, is_whole = ask(handle, path)
    assert (status, is_whole, len(handle.keys)) == (200, True, 1)
    head, _, event = body.partition(EVENT + name)
    assert not head
    assert "lost during the answer" in json.loads(event.removeprefix(b"data: "))["error"]["message"]


def test_an_answer_that_breaks_within_an_event_is_cut_off() -> None:
    handle = Scripted([Taken("a"), STREAM, BodyPart(EVENT[:9], more=True), lost()], ANSWER)
    assert ask(handle) == (200, EVENT[:9], False)


def test_a_request_that_no_replica_takes_is_refused() -> None:
    from ray.serve.exceptions import BackPressureError

    handle = Scripted([BackPressureError(num_queued_requests=9, max_queued_requests=9)])
    status, body, _ = ask(handle)
    assert (status, "all replicas are busy" in body.decode(), handle.n_cancelled) == (503, True, 1)


def test_health_answers_before_the_first_replica() -> None:
    status, body, _ = ask(None, HEALTH, "GET")
    assert (status, json.loads(body)["status"]) == (503, "loading")


def test_the_error_of_a_node_survives_the_text_of_a_traceback() -> None:
    error = LoadRefused.of(DoesNotFit("the model needs 9 GiB"))
    text = f"The deployment failed to start 3 times.\nTraceback:\n  x\n{type(error).__name__}: {error}\nmore"
    found = refused_load(text)
    assert found is not None
    assert (found.message, found.exit_code) == ("the model needs 9 GiB", DoesNotFit.exit_code)
    assert refused_load("anything else") is None
