"""Answers under a name: bound to client, key and body; computed once; bounded in bytes."""

import asyncio
import json
import threading
from collections.abc import Callable, Coroutine, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from mixcli.client.process import Host
from mixcli.errors import BadRequest
from mixcli.host.api.answering import _claimed
from mixcli.host.idempotency import (
    CLIENT,
    HEADER,
    MAX_KEY,
    MAX_REPLY,
    REPLAYED,
    TOO_LONG,
    IdempotencyCache,
    KeyReused,
    Recording,
    Reply,
    name_of,
)
from profiles.placement import Placement
from tests.mixcli.host.test_host import raw
from tests.support.hosts import held_for_a_file

NAME = ("client", "key")
REPLY = Reply(b"answer", "application/json")


def run(work: Coroutine[Any, Any, None]) -> None:
    asyncio.run(asyncio.wait_for(work, 20))


def test_the_same_name_and_body_gets_the_same_answer_and_another_body_is_refused() -> None:
    async def work() -> None:
        replies = IdempotencyCache()
        assert await replies.claim(NAME, b"body") is None
        replies.finish(NAME, REPLY)
        assert await replies.claim(NAME, b"body") == REPLY
        with pytest.raises(KeyReused) as caught:
            await replies.claim(NAME, b"other")
        assert (caught.value.status, caught.value.param) == (409, HEADER)
        assert await replies.claim(("another client", "key"), b"other") is None

    run(work())


def test_a_second_one_waits_for_the_first_and_computes_only_where_it_failed() -> None:
    async def work() -> None:
        replies = IdempotencyCache()
        assert await replies.claim(NAME, b"body") is None
        waiting = [asyncio.ensure_future(replies.claim(NAME, b"body")) for _ in range(3)]
        await asyncio.sleep(0.05)
        assert not any(one.done() for one in waiting)
        with pytest.raises(KeyReused):
            await replies.claim(NAME, b"other")
        replies.finish(NAME, None)  # its client left
        await asyncio.sleep(0.05)
        assert [one.done() for one in waiting].count(True) == 1, "one of them computes now"
        assert next(one for one in waiting if one.done()).result() is None
        replies.finish(NAME, REPLY)
        assert sorted(repr(one) for one in await asyncio.gather(*waiting)) == sorted(
            map(repr, (None, REPLY, REPLY))
        )

    run(work())


def test_a_client_that_leaves_as_it_gets_the_name_gives_it_back() -> None:
    """While it is asked whether the second client has left, the first one ends: the name is the second one's then, which computes and ends at once."""

    async def work() -> None:
        state = SimpleNamespace(replies=IdempotencyCache(), closing=asyncio.Event())
        assert await state.replies.claim(NAME, b"body") is None

        class Leaving:
            async def is_disconnected(self) -> bool:
                state.replies.finish(NAME, None)
                await asyncio.sleep(0.05)
                return True

        assert await _claimed(state, NAME, b"body", Leaving()) is None, "it has to finish"  # type: ignore[arg-type]
        state.replies.finish(NAME, None)
        assert await state.replies.claim(NAME, b"body") is None

    run(work())


def test_answers_are_bounded_in_bytes_and_in_number() -> None:
    async def work() -> None:
        replies = IdempotencyCache(max_bytes=1000, max_names=50)
        for i in range(200):
            assert await replies.claim(("", str(i)), b"x") is None
            replies.finish(("", str(i)), Reply(bytes(300), ""))
            assert replies.n_bytes <= 1000
        assert await replies.claim(("", "199"), b"x") is not None
        assert await replies.claim(("", "0"), b"x") is None, "the longest unused went first"
        assert await replies.claim(NAME, b"x") is None
        replies.finish(NAME, Reply(bytes(MAX_REPLY + 1), ""))
        assert await replies.claim(NAME, b"x") is None, "too long to be kept, so it is computed again"
        with pytest.raises(KeyReused):
            await replies.claim(NAME, b"y")

    run(work())


def test_a_running_one_is_never_evicted() -> None:
    async def work() -> None:
        replies = IdempotencyCache(max_names=2)
        for i in range(10):
            assert await replies.claim(("", str(i)), b"x") is None
        for i in range(10):
            replies.finish(("", str(i)), REPLY)

    run(work())


def test_a_stream_is_recorded_up_to_what_is_kept() -> None:
    recording = Recording()
    recording.add(b"a")
    recording.add(b"b")
    assert recording.reply("t") == Reply(b"ab", "t")
    for _ in range(3):
        recording.add(bytes(MAX_REPLY // 2))
    assert recording.reply("t") is TOO_LONG


@pytest.mark.parametrize("keys", [[""], ["  "], ["x" * (MAX_KEY + 1)], ["a", "a"]])
def test_a_name_that_cannot_be_one_is_refused(keys: list[str]) -> None:
    with pytest.raises(BadRequest) as caught:
        name_of("", keys)
    assert caught.value.param == HEADER


@pytest.fixture(scope="module")
def host(tmp_path_factory: pytest.TempPathFactory, demo_path: Callable[[str], Path]) -> Iterator[Host]:
    placement = Placement(n_ctx=1024, n_ubatch=128, n_threads=1, n_threads_batch=1)
    with held_for_a_file(tmp_path_factory, demo_path, placement) as host:
        yield host


def body_of(text: str, **fields: Any) -> dict[str, Any]:
    return {
        "messages": [{"role": "user", "content": text}],
        "max_tokens": 8,
        "temperature": 1.5,
        "top_k": 0,
        **fields,
    }


def post(host: Host, body: dict[str, Any], key: str, client: str = "") -> tuple[int, dict[str, Any]]:
    return raw(
        host.client.path,
        "POST",
        "/v1/chat/completions",
        json.dumps(body).encode(),
        **{HEADER: key, CLIENT: client},
    )


@pytest.mark.slow
@pytest.mark.model
def test_over_the_wire(host: Host) -> None:
    _, first = post(host, body_of("One"), "k")
    assert post(host, body_of("One"), "k") == (200, first)
    assert post(host, dict(reversed(body_of("One").items())), "k") == (200, first), (
        "the order of fields is none"
    )
    status, refusal = post(host, body_of("Two"), "k")
    assert (status, refusal["error"]["code"]) == (409, "idempotency_key_reused")
    assert refusal["error"]["param"] == HEADER
    status, other = post(host, body_of("Two"), "k", client="somebody else")
    assert (status, other["id"] != first["id"]) == (200, True)
    assert post(host, body_of("Bad", temperature=99), "bad")[0] == 400
    assert post(host, body_of("Bad"), "bad")[0] == 200, "a refusal is not kept"


@pytest.mark.model
def test_two_at_once_are_computed_once(host: Host) -> None:
    before = host.client.health().counts.n_requests_done
    answers: list[dict[str, Any]] = []
    body = body_of("Tell me a story.", max_tokens=60)
    threads = [
        threading.Thread(target=lambda: answers.append(post(host, body, "at once")[1])) for _ in range(4)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len({answer["id"] for answer in answers}) == 1
    assert host.client.health().counts.n_requests_done == before + 1


@pytest.mark.slow
@pytest.mark.model
def test_a_stream_with_a_key_is_the_same_stream_again(host: Host) -> None:
    def stream(key: str, **fields: Any) -> tuple[str | None, bytes]:
        response = host.client._request(
            "POST", "/v1/chat/completions", body_of("Sing.", stream=True, **fields), {HEADER: key}
        )
        with response:
            return response.getheader(REPLAYED), b"".join(response.raw_pieces())

    mark, first = stream("s")
    assert mark is None
    assert stream("s") == ("true", first)
    assert first.endswith(b"data: [DONE]\n\n")
    assert post(host, body_of("Sing."), "s")[0] == 409, "a stream is another request"
    with host.client._request(
        "POST", "/v1/chat/completions", body_of("Sing.", stream=True, max_tokens=800), {HEADER: "gone"}
    ) as left:
        next(left.raw_pieces())
    mark, again = stream("gone", max_tokens=800)
    assert mark is None, "a stream whose client left is computed again"
    assert again.endswith(b"data: [DONE]\n\n")
