"""What the wire carries beyond OpenAI's basics: choices, schemas, progress, token ids, overflow, counts, routing; many at once."""

import json
import os
import socket
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from mixcli.client.process import Host
from profiles.placement import Placement
from tests.mixcli.host.test_host import raw
from tests.support.hosts import held_for_a_file
from tests.support.waiting import LIMIT, wait_for

pytestmark = pytest.mark.model

PLACEMENT = Placement(n_ctx=1024, n_ubatch=128, n_threads=1, n_threads_batch=1)


@pytest.fixture(scope="module")
def host(tmp_path_factory: pytest.TempPathFactory, demo_path: Callable[[str], Path]) -> Iterator[Host]:
    """One host for all tests of this file."""
    with held_for_a_file(tmp_path_factory, demo_path, PLACEMENT) as host:
        yield host


def post(host: Host, target: str, body: Any, status: int = 200) -> dict[str, Any]:
    found, answer = raw(host.client.path, "POST", target, json.dumps(body).encode())
    assert found == status, answer
    return answer


def chat(host: Host, text: str, *, status: int = 200, **fields: Any) -> dict[str, Any]:
    body = {"messages": [{"role": "user", "content": text}], "temperature": 0, "max_tokens": 40, **fields}
    return post(host, "/v1/chat/completions", body, status)


def content(answer: dict[str, Any]) -> str:
    text = answer["choices"][0]["message"]["content"]
    assert isinstance(text, str)
    return text


def events(host: Host, body: dict[str, Any]) -> list[dict[str, Any]]:
    response = host.client._request("POST", "/v1/chat/completions", {**body, "stream": True})
    return list(host.client._events(response))


def test_a_choice_has_all_probabilities(host: Host) -> None:
    answer = chat(
        host, "Is the sky blue? Answer yes or no.", structured_outputs={"choice": ["yes", "no", "yes, often"]}
    )
    probabilities = answer["choices"][0]["label_probs"]
    assert list(probabilities) == ["yes", "no", "yes, often"]
    assert sum(probabilities.values()) == pytest.approx(1)
    assert content(answer) == max(probabilities, key=probabilities.__getitem__)
    assert answer["choices"][0]["finish_reason"] == "stop"


@pytest.mark.parametrize(
    "asked",
    [
        {"response_format": {"type": "json_object"}},
        {
            "response_format": {
                "type": "json_schema",
                "json_schema": {
                    "name": "x",
                    "schema": {"type": "object", "properties": {"a": {"type": "integer"}}},
                },
            }
        },
        {"structured_outputs": {"json": {"enum": [{"a": 1}, {"b": [2, 3]}]}}},
        {"structured_outputs": {"json": '{"type": "array", "items": {"enum": [1, 2]}, "maxItems": 3}'}},
    ],
)
def test_json_comes_as_asked(host: Host, asked: dict[str, Any]) -> None:
    answer = chat(host, "Give me something small.", max_tokens=200, **asked)
    if answer["choices"][0]["finish_reason"] == "stop":
        json.loads(content(answer))
    else:
        assert asked["response_format"]["type"] == "json_object", "only that one has no end"


def test_regex_and_grammar(host: Host) -> None:
    assert content(chat(host, "A number.", structured_outputs={"regex": "[0-9]{3}"})).isdigit()
    grammar = 'root ::= "red" | "green"'
    assert content(chat(host, "A colour.", structured_outputs={"grammar": grammar})) in ("red", "green")


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"structured_outputs": {"regex": "[0-9"}}, "structured_outputs.regex"),
        ({"structured_outputs": {"grammar": "root ::= foo"}}, "structured_outputs.grammar"),
        ({"structured_outputs": {"json": {"type": "nonsense"}}}, "structured_outputs.json"),
        ({"structured_outputs": {}}, "structured_outputs"),
        ({"structured_outputs": {"regex": "a", "choice": ["a"]}}, "structured_outputs"),
        ({"structured_outputs": {"choice": []}}, "structured_outputs.choice"),
        ({"structured_outputs": {"choice": ["a", "a"]}}, "structured_outputs.choice"),
        ({"structured_outputs": {"choice": ["a", ""]}}, "structured_outputs.choice"),
        ({"response_format": {"type": "json_schema"}}, "response_format.json_schema"),
        ({"logprobs": True, "top_logprobs": 21}, "top_logprobs"),
        ({"on_overflow": "guess"}, "on_overflow"),
        ({"mirostat": 9}, "mirostat"),
    ],
)
def test_a_bad_field_is_named(host: Host, fields: dict[str, Any], param: str) -> None:
    error = chat(host, "Hello", status=400, **fields)["error"]
    assert error["param"] == param
    assert error["message"]


@pytest.mark.slow
def test_progress_comes_before_the_text(host: Host) -> None:
    text = " ".join(f"word{i}" for i in range(200))
    found = events(
        host, {"messages": [{"role": "user", "content": text}], "max_tokens": 2, "return_progress": True}
    )
    progress = [event["prompt_progress"] for event in found if "prompt_progress" in event]
    total = progress[0]["total"]
    assert [one["processed"] for one in progress] == sorted(one["processed"] for one in progress)
    assert all(one["cache"] <= one["processed"] <= total for one in progress)
    plain = events(host, {"messages": [{"role": "user", "content": text}], "max_tokens": 2})
    assert not any("prompt_progress" in event for event in plain)


def test_token_ids_make_the_next_turn_start_where_this_one_ended(host: Host) -> None:
    first = chat(host, "Tell me about stones.", return_token_ids=True, seed=3, temperature=1.2)
    said = {"role": "assistant", "content": content(first), "token_ids": first["choices"][0]["token_ids"]}
    messages = [
        {"role": "user", "content": "Tell me about stones."},
        said,
        {"role": "user", "content": "More."},
    ]
    second = post(host, "/v1/chat/completions", {"messages": messages, "max_tokens": 2})
    n_said = len(first["choices"][0]["token_ids"])
    assert (
        second["usage"]["prompt_tokens_details"]["cached_tokens"]
        >= first["usage"]["prompt_tokens"] + n_said - 1
    )
    stream = events(host, {"messages": messages, "max_tokens": 4, "return_token_ids": True})
    last = next(event for event in stream if event["choices"] and event["choices"][0]["finish_reason"])
    assert len(last["choices"][0]["token_ids"]) <= 4


def test_logprobs_are_openais(host: Host) -> None:
    answer = chat(host, "Say a word.", max_tokens=3, logprobs=True, top_logprobs=2)
    listed = answer["choices"][0]["logprobs"]["content"]
    assert "".join(bytes(one["bytes"]).decode() for one in listed) == content(answer)
    for one in listed:
        assert one["logprob"] <= 0
        assert len(one["top_logprobs"]) == 2
        assert one["logprob"] == one["top_logprobs"][0]["logprob"], "temperature 0 takes the likeliest"


@pytest.mark.slow
def test_a_conversation_that_is_too_long_is_refused_or_shortened_as_asked(host: Host) -> None:
    turns = [
        message
        for i in range(30)
        for message in (
            {"role": "user", "content": f"Remember {i}. " * 8},
            {"role": "assistant", "content": f"I do remember {i}."},
        )
    ]
    messages = [{"role": "system", "content": "Be kind."}, *turns, {"role": "user", "content": "Bye."}]
    error = post(host, "/v1/chat/completions", {"messages": messages}, 400)["error"]
    assert (error["code"], error["exit_code"]) == ("context_length_exceeded", 4)
    assert error["n_prompt"] > error["n_ctx"] == 1024
    body = {"messages": messages, "on_overflow": "drop-oldest", "max_tokens": 2}
    answer = post(host, "/v1/chat/completions", body)
    assert answer["dropped_messages"] > 0
    assert answer["dropped_messages"] % 2 == 0
    assert all(event["dropped_messages"] == answer["dropped_messages"] for event in events(host, body))


def test_tokens_are_counted_as_a_request_counts_them(host: Host) -> None:
    messages = [{"role": "user", "content": "How many am I?"}]
    counted = post(host, "/tokenize", {"messages": messages})
    answer = post(host, "/v1/chat/completions", {"messages": messages, "max_tokens": 1})
    assert counted["count"] == len(counted["tokens"]) == answer["usage"]["prompt_tokens"]
    assert counted["max_model_len"] == 1024
    assert post(host, "/tokenize", {"prompt": "How many"})["count"] == 2
    assert post(host, "/tokenize", {}, 400)["error"]["param"] == "prompt"


def test_routing_of_an_answer(host: Host) -> None:
    messages = [
        {"role": "user", "content": "Hi"},
        {"role": "assistant", "content": "Hello, how are you today?"},
    ]
    found = post(host, "/mixcli/experts", {"messages": messages})
    assert (found["n_expert"], found["n_expert_used"], len(found["layers"])) == (8, 2, 30)
    assert all(sum(layer) == 2 * found["n_tokens"] for layer in found["layers"])
    assert post(host, "/mixcli/experts", {"messages": messages[:1]}, 400)["error"]["param"] == "messages"


@pytest.mark.slow
def test_thirty_two_askers_at_once_get_their_own_answers(host: Host) -> None:
    before = host.client.health().counts.n_requests_done
    answers: dict[int, str] = {}

    def ask(i: int) -> None:
        choices = [f"number {i}", f"letter {i}"]
        answers[i] = content(chat(host, f"Say {i}.", structured_outputs={"choice": choices}, park=False))

    threads = [threading.Thread(target=ask, args=(i,)) for i in range(32)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(answers) == list(range(32))
    assert all(answer.endswith(f" {i}") for i, answer in answers.items())
    assert host.client.health().counts.n_requests_done == before + 32


def head(body: bytes, target: str = "/v1/chat/completions") -> bytes:
    return f"POST {target} HTTP/1.1\r\nHost: x\r\nContent-Length: {len(body)}\r\n\r\n".encode()


def request(text: str, **fields: Any) -> bytes:
    body = json.dumps({"messages": [{"role": "user", "content": text}], "max_tokens": 900, **fields}).encode()
    return head(body) + body


STORY, LONG = request("A long story.", stream=True), request("word " * 700, stream=True)
NAMED = request("A name.").replace(b"\r\n", b"\r\nIdempotency-Key: same\r\n", 1)
# what a client sends, and which bytes it waits for, before it vanishes
STAGES: dict[str, tuple[bytes, bytes]] = {
    "after connecting": (b"", b""),
    "in the head": (STORY[:20], b""),
    "in the body": (STORY[:-20], b""),
    "in a large body": (head(b"x" * (1 << 20)) + b"x" * (1 << 18), b""),
    "while it is queued": (STORY, b""),
    "while its whole answer is computed": (request("A long story."), b""),
    "while another computes its name": (NAMED, b""),
    "while its prompt is read": (LONG, b""),
    "in the stream": (STORY, b"content"),
    "at its end": (request("Hi", stream=True, max_tokens=3), b"[DONE]"),
    "while it counts": (head(b'{"prompt": "a"}', "/tokenize") + b'{"prompt": "a"}', b""),
    "while it holds the model": (b"GET /mixcli/attach?keep_alive=60 HTTP/1.1\r\nHost: x\r\n\r\n", b"ready"),
}


def vanish(path: Path, sent: bytes, awaited: bytes) -> None:
    with socket.socket(socket.AF_UNIX) as client:
        client.settimeout(LIMIT)
        client.connect(str(path))
        client.sendall(sent)
        seen = b""
        while awaited not in seen:
            seen += client.recv(1 << 16)
        time.sleep(0.005 if sent else 0)


@pytest.mark.slow
def test_clients_who_vanish_at_any_moment_cost_nothing(host: Host) -> None:
    def held() -> tuple[int, ...]:
        state = host.client.health()
        n_files = len(os.listdir(f"/proc/{host.pid}/fd"))  # noqa: PTH208
        return n_files, state.busy or 0, state.counts.n_running, state.counts.n_waiting

    vanish(host.client.path, *STAGES["in the stream"])
    wait_for(lambda: held()[1:] == (1, 0, 0))
    before = held()
    with ThreadPoolExecutor(12) as pool:
        for _ in range(5):
            for done in [pool.submit(vanish, host.client.path, *stage) for stage in STAGES.values()]:
                done.result()
    wait_for(lambda: held() == before)
    assert content(chat(host, "Still there?"))
    assert "Traceback" not in host.name.log.read_text("utf-8"), "who leaves is no fault of the host"
