"""The host process with the demo model in it: streams, shares, dies and leaves as it should."""

import http.client
import json
import os
import signal
import socket
import subprocess
import sys
import threading
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from mixcli.client.process import Host, hosts, stop
from mixcli.errors import Busy, MixcliError, ModelDied, UsageError
from mixcli.host.protocol.host_name import HostName
from mixcli.host.protocol.host_spec import DraftLoad, LoadPlan
from mixcli.host.protocol.messages import ChatBody
from tests.conftest import Runner
from tests.support.hosts import PLACEMENT, connect, held
from tests.support.traces import CAPITAL
from tests.support.waiting import LIMIT, wait_for

pytestmark = pytest.mark.model

QUESTION = {
    "messages": [{"role": "user", "content": "What is the capital of France?"}],
    "temperature": 0,
    "max_tokens": 24,
}
LONG = {
    "messages": [{"role": "user", "content": "Tell me a very long story about the sea."}],
    "max_tokens": 1500,
    "temperature": 0,
    "ignore_eos": True,
}


@pytest.mark.slow
def test_a_draft_model_guesses_and_the_answer_is_the_same(name: HostName, smol_path: Path) -> None:
    """SmolLM2 drafts for the demo, whose experts are copies of it; a deterministic request is answered without drafts."""
    small = DraftLoad(smol_path, replace(PLACEMENT, n_ctx=512, n_seq_max=1))
    with held(name, LoadPlan(PLACEMENT, draft=small)) as host:
        plain = ask(host, {**QUESTION, "deterministic": True})
        deltas = list(host.client.chat(ChatBody(whole=QUESTION)))
    assert "".join(delta.text for delta in deltas) == plain
    timings = next(delta.timings for delta in deltas if delta.timings)
    assert 0 < (timings.draft_n_accepted or 0) <= (timings.draft_n or 0)


def ask(host: Host, body: dict[str, Any]) -> str:
    return "".join(delta.text for delta in host.client.chat(ChatBody(whole=body)))


def raw(
    path: Path, method: str, target: str, body: bytes = b"", **headers: str
) -> tuple[int, dict[str, Any]]:
    connection = http.client.HTTPConnection("localhost")
    connection.sock = socket.socket(socket.AF_UNIX)
    connection.sock.connect(str(path))
    connection.request(
        method, target, body, {"Content-Type": "application/json", "Connection": "close", **headers}
    )
    response = connection.getresponse()
    with response:
        return response.status, json.loads(response.read())


def test_it_answers_in_a_stream_and_counts_its_tokens(file_host: Host) -> None:
    deltas = list(file_host.client.chat(ChatBody(whole=QUESTION)))
    text = "".join(delta.text for delta in deltas)
    assert CAPITAL.matches(text)
    assert sum(bool(delta.text) for delta in deltas) > 3
    usage = next(delta.usage for delta in deltas if delta.usage)
    assert usage.prompt_tokens
    assert usage.completion_tokens
    assert usage.total_tokens == usage.prompt_tokens + usage.completion_tokens
    assert usage.completion_tokens <= 24


def test_the_same_question_again_reuses_what_was_computed(file_host: Host) -> None:
    first = list(file_host.client.chat(ChatBody(whole=QUESTION)))
    again = list(file_host.client.chat(ChatBody(whole=QUESTION)))
    assert "".join(d.text for d in first) == "".join(d.text for d in again)
    usage = next(d.usage for d in again if d.usage)
    assert usage.prompt_tokens
    assert usage.cached_tokens == usage.prompt_tokens - 1


def test_openais_own_client_understands_it(file_host: Host) -> None:
    httpx = pytest.importorskip("httpx2")
    openai = pytest.importorskip("openai")
    transport = httpx.HTTPTransport(uds=str(file_host.client.path))
    with openai.OpenAI(
        base_url="http://localhost/v1", api_key="none", http_client=httpx.Client(transport=transport)
    ) as client:
        assert [model.id for model in client.models.list()] == ["demo:Q4_K_M"]
        answer = client.chat.completions.create(model="demo", **QUESTION)
        assert CAPITAL.matches(answer.choices[0].message.content or "")
        assert answer.choices[0].finish_reason in ("stop", "length")
        stream = client.chat.completions.create(model="demo", stream=True, **QUESTION)
        assert CAPITAL.matches(
            "".join(chunk.choices[0].delta.content or "" for chunk in stream if chunk.choices)
        )


@pytest.mark.slow
def test_two_starts_at_the_same_moment_give_one_host(name: HostName) -> None:
    found: list[Host] = []
    threads = [threading.Thread(target=lambda: found.append(connect(name, PLACEMENT, 60))) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    try:
        assert len(found) == 4
        assert len({host.pid for host in found}) == 1
        assert len(hosts()) == 1
    finally:
        for host in found:
            host.release()
        for left in hosts():
            stop(left.pid)


@pytest.mark.slow
def test_keep_alive_0_leaves_nothing_behind(name: HostName) -> None:
    host = connect(name, PLACEMENT, 0)
    assert CAPITAL.matches(ask(host, QUESTION))
    pid = host.pid
    host.release()
    wait_for(lambda: not name.socket.exists())
    wait_for(lambda: host.process is not None and host.process.poll() is not None)
    assert hosts() == []
    with pytest.raises(ProcessLookupError):
        os.kill(pid, 0)


def test_an_asker_who_leaves_stops_the_model_and_others_go_on(file_host: Host) -> None:
    before = file_host.client.health().counts.n_requests_done
    for _ in range(20):
        stream = file_host.client.chat(ChatBody(whole=LONG))
        next(delta for delta in stream if delta.text)
        stream.close()
    assert CAPITAL.matches(ask(file_host, QUESTION))
    wait_for(lambda: file_host.client.health().busy == 1)  # we ourselves
    assert file_host.client.health().counts.n_requests_done == before + 1, (
        "the long stories were not told to the end"
    )


@pytest.mark.slow
def test_a_text_that_another_host_has_read_comes_from_the_disk(name: HostName) -> None:
    text = " ".join(f"word{i}" for i in range(60))
    body = {"messages": [{"role": "user", "content": text}], "max_tokens": 1, "persist": True}
    usages = []
    for _ in range(2):
        with held(name, PLACEMENT) as host:
            usages.append(host.client.complete(ChatBody(whole=body)).usage)
    assert usages[0].prompt_tokens
    assert [usage.cached_tokens for usage in usages] == [0, usages[0].prompt_tokens - 1]


@pytest.mark.slow
def test_sigterm_lets_it_end_by_itself(host: Host) -> None:
    assert host.process is not None
    os.kill(host.process.pid, signal.SIGTERM)
    assert host.process.wait(LIMIT) == 0
    assert not host.name.socket.exists()


@pytest.mark.slow
def test_sigterm_tells_those_whose_answers_take_too_long(host: Host) -> None:
    def whole() -> None:
        with pytest.raises(Busy, match="was stopped before the answer was complete") as refusal:
            host.client.complete(ChatBody(whole=LONG))
        told.append(refusal.value)

    told: list[BaseException] = []
    waiting = threading.Thread(target=whole)
    waiting.start()
    stream = host.client.chat(ChatBody(whole=LONG))
    next(delta for delta in stream if delta.text)
    os.kill(host.pid, signal.SIGTERM)
    with pytest.raises(ModelDied, match="was stopped before the answer was complete"):
        list(stream)
    waiting.join(LIMIT)
    assert len(told) == 1
    assert host.process is not None
    assert host.process.wait(LIMIT) == 0


@pytest.mark.slow
def test_a_host_that_leaves_does_not_take_its_successors_socket_away(host: Host, name: HostName) -> None:
    def nobody_listens() -> bool:
        try:
            host.client.health()
        except (FileNotFoundError, ConnectionError):
            return True
        return False

    stream = host.client.chat(ChatBody(whole=LONG))
    next(delta for delta in stream if delta.text)
    os.kill(host.pid, signal.SIGTERM)
    wait_for(nobody_listens)
    successor = connect(name, PLACEMENT, 0)
    stream.close()
    assert host.process is not None
    assert host.process.wait(LIMIT) == 0
    assert [state.pid for state in hosts()] == [successor.pid]
    successor.release()


@pytest.mark.slow
def test_a_host_that_dies_in_an_answer_is_named_and_the_next_one_works(host: Host, name: HostName) -> None:
    stream = host.client.chat(ChatBody(whole=LONG))
    next(delta for delta in stream if delta.text)
    os.kill(host.pid, signal.SIGKILL)
    with pytest.raises(ModelDied, match="crashed during the response"):
        list(stream)
    assert "killed by signal 9" in host.cause_of_death()
    again = connect(name, PLACEMENT, 0)
    assert CAPITAL.matches(ask(again, QUESTION))
    again.release()


@pytest.mark.slow
def test_a_load_that_fails_is_told_with_its_reason(home: Path, tmp_path: Path) -> None:
    broken = tmp_path / "broken.gguf"
    broken.write_bytes(b"GGUF" + bytes(64))
    name = HostName(broken, "broken", "{}")
    with pytest.raises(MixcliError, match=r"broken\.gguf"):
        connect(name, PLACEMENT, 60)
    wait_for(lambda: not name.socket.exists())


@pytest.mark.parametrize(
    ("change", "field"),
    [
        ({"temperature": "hot"}, "temperature"),
        ({"temperature": -1}, "temperature"),
        ({"top_p": 7}, "top_p"),
        ({"n": 1_000_000_000}, "n"),
        ({"max_tokens": 0}, "max_tokens"),
        ({"max_tokens": 10**10}, "max_tokens"),
        ({"messages": []}, "messages"),
        ({"messages": "hello"}, "messages"),
        ({"messages": [{"role": "wizard", "content": "x"}]}, "messages.0.role"),
        ({"logit_bias": {"99999999": 1}}, "logit_bias"),
        ({"logit_bias": {"1": 1000}}, "logit_bias"),
        ({"stop": [""]}, "stop"),
        ({"seed": 1.5}, "seed"),
    ],
)
def test_a_bad_field_is_named_with_400(file_host: Host, change: dict[str, Any], field: str) -> None:
    status, body = raw(
        file_host.name.socket, "POST", "/v1/chat/completions", json.dumps({**QUESTION, **change}).encode()
    )
    assert status == 400
    assert body["error"]["param"] == field
    assert body["error"]["type"] == "invalid_request_error"


def test_what_is_no_request_is_400_and_the_next_one_works(file_host: Host) -> None:
    for body in (
        b"",
        b"[]",
        b"{",
        b'"text"',
        b'{"messages": [{"role": "user", "content": "a"}], "temperature": NaN}',
    ):
        status, answer = raw(file_host.name.socket, "POST", "/v1/chat/completions", body)
        assert status == 400, body
        assert answer["error"]["message"]
    assert CAPITAL.matches(ask(file_host, QUESTION))


def test_a_prompt_beyond_the_context_says_both_numbers(file_host: Host) -> None:
    body = {"messages": [{"role": "user", "content": "word " * 5000}]}
    with pytest.raises(MixcliError, match=r"2,?048") as refusal:
        ask(file_host, body)
    assert refusal.value.exit_code == 4
    with pytest.raises(UsageError, match="temperature"):
        ask(file_host, {**QUESTION, "temperature": 99})


def test_the_folder_of_the_socket_is_private(file_host: Host) -> None:
    assert file_host.name.socket.parent.stat().st_mode & 0o077 == 0


def test_a_socket_that_nobody_listens_on_is_cleared_away(home: Path, mixcli: Runner) -> None:
    from mixcli.system.paths import runtime_dir

    dead = runtime_dir() / "0123456789abcdef.sock"
    code = "import socket, sys; socket.socket(socket.AF_UNIX).bind(sys.argv[1])"
    subprocess.run([sys.executable, "-W", "ignore", "-c", code, str(dead)], check=True)
    assert dead.exists()
    assert mixcli("ps", "--json").stdout.strip() == "[]"
    assert not dead.exists()
