"""mixcli serve as a process, with the demo: clients, strangers, drains, ports."""

import contextlib
import http.client
import json
import os
import re
import signal
import socket
import subprocess
import sys
import threading
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from mixcli.client.process import hosts
from tests.conftest import Runner
from tests.support.served import Served
from tests.support.traces import CAPITAL
from tests.support.waiting import ends_within, wait_for

pytestmark = pytest.mark.model
QUESTION: dict[str, Any] = {
    "messages": [{"role": "user", "content": "What is the capital of France?"}],
    "temperature": 0,
    "max_tokens": 12,
}
STORY: dict[str, Any] = {
    "messages": [{"role": "user", "content": "Tell me a very long story about the sea."}],
    "temperature": 0,
    "max_tokens": 60,
    "ignore_eos": True,
}


@pytest.fixture
def served(mixcli: Runner, with_demo: Path) -> Iterator[Served]:
    """Serve the demo for a test that ends the server."""
    yield from running()


@pytest.fixture(scope="module")
def kept(warm_home: Path) -> Iterator[Served]:
    """Serve it for the tests that leave the server running; each may end the model process, which the next request starts again."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MIXCLI_HOME", str(warm_home))
        yield from running()


def running() -> Iterator[Served]:
    server = Served("--port", "0")
    yield server
    if server.process.poll() is None:
        server.process.kill()
        server.process.communicate()


@pytest.mark.slow
def test_the_end_of_the_context_is_told(mixcli: Runner, with_demo: Path) -> None:
    """An answer that reaches it is cut with finish_reason length; a prompt beyond it is a 400; the next request works."""
    server = Served("--port", "0", n_ctx=256)
    try:
        words = "Tell me a very long story about the sea. "
        messages = [{"role": "user", "content": words * 24}]
        while server.ask("POST", "/tokenize", {"messages": messages})[1]["count"] > 250:
            messages[0]["content"] = messages[0]["content"].removesuffix(words)
        body = {"messages": messages, "temperature": 0, "max_tokens": 200}
        n_prompt = server.ask("POST", "/tokenize", {"messages": messages})[1]["count"]
        status, whole = server.ask("POST", "/v1/chat/completions", body)
        assert (status, whole["choices"][0]["finish_reason"]) == (200, "length")
        assert whole["usage"]["prompt_tokens"] == n_prompt
        assert whole["usage"]["total_tokens"] == 256 + 1  # the last token of an answer needs no cell
        status, stream = server.ask("POST", "/v1/chat/completions", {**body, "stream": True})
        events = [
            json.loads(line.removeprefix("data: "))
            for line in stream.splitlines()
            if line and "[DONE]" not in line
        ]
        reasons = [one["choices"][0]["finish_reason"] for one in events if one["choices"]]
        assert (status, [reason for reason in reasons if reason]) == (200, ["length"])
        longer = [{"role": "user", "content": words * 60}]
        for stream_it in (False, True):
            status, refused = server.ask(
                "POST", "/v1/chat/completions", {**body, "messages": longer, "stream": stream_it}
            )
            assert (status, refused["error"]["code"]) == (400, "context_length_exceeded")
            assert "more than the maximum context length of 256" in refused["error"]["message"]
        assert server.ask("POST", "/v1/chat/completions", {**QUESTION, "max_tokens": 2})[0] == 200
        assert server.end()[0] == 0
    finally:
        server.process.kill()
        server.process.communicate()


@pytest.mark.slow
def test_it_serves_clients_and_nobody_else_and_drains(served: Served) -> None:
    status, answer = served.ask("POST", "/v1/chat/completions", QUESTION)
    assert status == 200
    assert CAPITAL.matches(answer["choices"][0]["message"]["content"])
    status, stream = served.ask("POST", "/v1/chat/completions", {**QUESTION, "stream": True})
    events = [line.removeprefix("data: ") for line in stream.splitlines() if line]
    assert events[-1] == "[DONE]"
    text = "".join(json.loads(event)["choices"][0]["delta"].get("content", "") for event in events[:-1])
    assert text == answer["choices"][0]["message"]["content"]
    assert [model["id"] for model in served.ask("GET", "/v1/models")[1]["data"]] == ["demo:Q4_K_M"]
    assert served.ask("POST", "/tokenize", {"prompt": "two words"})[1]["count"] == 2
    health = served.ask("GET", "/health")[1]
    assert health["status"] == "ready"
    assert not {"path", "pid"} & set(health)

    assert served.ask("POST", "/v1/chat/completions", QUESTION, Host="evil.example")[0] == 403
    assert served.ask("POST", "/v1/chat/completions", QUESTION, Content_Type="text/plain")[0] == 415
    assert served.ask("GET", "/mixcli/attach?keep_alive=1")[0] == 404
    status, refusal = served.ask("POST", "/v1/chat/completions", {**QUESTION, "temperature": 99})
    assert (status, refusal["error"]["param"]) == (400, "temperature")

    asked: list[tuple[int, Any]] = []
    slow = threading.Thread(
        target=lambda: asked.append(served.ask("POST", "/v1/chat/completions", {**STORY, "max_tokens": 60}))
    )
    slow.start()
    wait_for(lambda: served.ask("GET", "/health")[1]["n_running"])
    code, err = served.end()
    slow.join()
    assert code == 0, err
    assert asked[0][0] == 200, "what had begun was allowed to end"
    assert asked[0][1]["choices"][0]["finish_reason"] == "length"
    with pytest.raises(ConnectionRefusedError):
        served.ask("GET", "/health")
    wait_for(lambda: hosts() == [])


@pytest.mark.slow
def test_who_hangs_up_stops_the_model(kept: Served) -> None:
    endless = json.dumps({**STORY, "max_tokens": 900, "stream": True}).encode()
    head = b"POST /v1/chat/completions HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n"
    for _ in range(5):
        with socket.create_connection(("127.0.0.1", kept.port)) as connection:
            connection.sendall(head % len(endless) + endless)
            assert connection.recv(1000).startswith(b"HTTP/1.1 200")
    wait_for(lambda: kept.ask("GET", "/health")[1]["n_running"] == 0)


@pytest.mark.slow
def test_a_model_that_dies_is_started_again(warm: Runner, kept: Served) -> None:
    (host,) = hosts()
    os.kill(host.pid, signal.SIGKILL)
    assert CAPITAL.matches(
        kept.ask("POST", "/v1/chat/completions", QUESTION)[1]["choices"][0]["message"]["content"]
    )
    assert hosts()[0].pid != host.pid


@pytest.mark.slow
def test_a_stream_whose_model_dies_ends_with_an_error_event(served: Served) -> None:
    body = json.dumps({**STORY, "max_tokens": 900, "stream": True})
    with contextlib.closing(http.client.HTTPConnection("127.0.0.1", served.port, timeout=60)) as connection:
        connection.request("POST", "/v1/chat/completions", body, {"Content-Type": "application/json"})
        response = connection.getresponse()
        events = iter(response)
        assert next(events).startswith(b"data: {")
        (host,) = hosts()
        os.kill(host.pid, signal.SIGKILL)
        *_, last = (line for line in events if line.startswith(b"data: "))
    assert "the model process crashed during the answer" in json.loads(last[6:])["error"]["message"]
    code, err = served.end()
    assert (code, "Traceback" in err) == (0, False), err


@pytest.mark.slow
def test_openais_own_client_and_our_batch_get_the_same_answers_through_it(
    warm: Runner, kept: Served, tmp_path: Path
) -> None:
    texts = tmp_path / "countries.txt"
    texts.write_text("France\nItaly\nEngland\n" * 4)
    ask = (
        "batch",
        str(texts),
        "--prompt",
        "The capital of {{ text }} is called?",
        "--choice",
        "Paris,Rome,London",
    )
    here = warm(*ask, "-m", "demo", "--ctx", "1024")
    there = warm(*ask, "--endpoint", f"http://127.0.0.1:{kept.port}/v1")
    assert (here.returncode, there.returncode) == (0, 0), there.stderr
    assert f"the text is sent to http://127.0.0.1:{kept.port}/v1" in there.stderr

    def labels(text: str) -> list[tuple[int, str]]:
        return [(line["id"], line["result"]) for line in map(json.loads, text.splitlines())]

    assert labels(there.stdout) == labels(here.stdout)
    assert len(labels(here.stdout)) == 12
    once = warm(
        "run", "What is the capital of France?", "--endpoint", f"http://127.0.0.1:{kept.port}", "--stats"
    )
    assert CAPITAL.matches(once.stdout)
    assert "tokens" in once.stderr


def test_the_key_is_demanded_where_others_can_reach_it(mixcli: Runner, with_demo: Path) -> None:
    for key, words in (("", "is not set"), ("short", "is 5 characters long")):
        done = mixcli("serve", "-m", "demo", "--host", "0.0.0.0", "--port", "0", MIXCLI_API_KEY=key)
        assert done.returncode == 2
        assert "an API key is required" in done.stderr
        assert words in done.stderr
        assert "short" not in done.stderr.replace("MIXCLI_API_KEY has 5", "")


@pytest.mark.slow
def test_with_a_key_it_is_reached_by_each_address_that_it_prints(mixcli: Runner, with_demo: Path) -> None:
    """At all addresses of the machine, with a key that no child has in its environment; the model is an argument."""
    key = "a-key-that-no-child-sees"
    command = [
        sys.executable,
        "-m",
        "mixcli",
        "serve",
        "demo",
        "--ctx",
        "256",
        "--host",
        "0.0.0.0",
        "--port",
        "0",
    ]
    process = subprocess.Popen(
        command,
        stdin=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "MIXCLI_API_KEY": key},
    )
    try:
        assert process.stderr is not None
        said = next(line for line in process.stderr if " at http://" in line)
        urls = re.findall(r"http://\S+/v1", said)
        assert f"http://{socket.gethostname()}" in said
        assert urls[-1].startswith("http://127.0.0.1:")
        for url in urls:
            with contextlib.suppress(
                socket.gaierror
            ):  # a host name that this machine cannot resolve is of use to others
                request = urllib.request.Request(f"{url}/models", headers={"Authorization": f"Bearer {key}"})
                with urllib.request.urlopen(request, timeout=60) as response:
                    assert json.loads(response.read())["data"][0]["id"] == "demo:Q4_K_M"
        (host,) = hosts()
        assert key not in Path(f"/proc/{host.pid}/environ").read_text()
    finally:
        process.send_signal(signal.SIGTERM)
        process.communicate(timeout=60)
    assert process.returncode == 0


@pytest.mark.slow
def test_a_load_that_is_interrupted_ends_the_server(mixcli: Runner, with_demo: Path) -> None:
    command = [sys.executable, "-m", "mixcli", "serve", "demo", "--ctx", "256", "--port", "0"]
    process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
    try:
        assert process.stderr is not None
        assert "listening on port" in process.stderr.readline()
        process.send_signal(signal.SIGINT)
        process.communicate(timeout=60)
        assert process.returncode == 130
    finally:
        process.kill()
        process.communicate()
    wait_for(lambda: hosts() == [])


def test_a_port_in_use_is_one_sentence_before_anything_is_loaded(mixcli: Runner, with_demo: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]
        done = mixcli("serve", "-m", "demo", "--port", str(port))
    assert done.returncode == 1
    assert f"port {port} is in use on 127.0.0.1" in done.stderr
    assert done.stderr.count("\n") == 1
    assert hosts() == []


@pytest.mark.slow
def test_an_idempotency_key_belongs_to_one_api_key_and_one_body(kept: Served) -> None:
    story = {**STORY, "temperature": 1.5, "max_tokens": 8}
    first = kept.ask("POST", "/v1/chat/completions", story, Idempotency_Key="1", Authorization="Bearer a")
    again = kept.ask("POST", "/v1/chat/completions", story, Idempotency_Key="1", Authorization="Bearer a")
    assert first == again
    forged = {"X_Mixcli_Client": "serve-0", "Idempotency_Key": "1", "Authorization": "Bearer b"}
    status, other = kept.ask("POST", "/v1/chat/completions", story, **forged)
    assert status == 200
    assert other["id"] != first[1]["id"]
    status, refusal = kept.ask(
        "POST", "/v1/chat/completions", QUESTION, Idempotency_Key="1", Authorization="Bearer a"
    )
    assert (status, refusal["error"]["code"]) == (409, "idempotency_key_reused")


@pytest.mark.slow
def test_a_look_loads_nothing_and_a_request_does(kept: Served, warm: Runner) -> None:
    """`mixcli stop` while serve runs ends at once, though serve is the parent of the process; what serve says afterwards is no new load."""
    assert warm("stop", "--all", timeout=60).returncode == 0
    status, body = kept.ask("GET", "/health")
    assert (status, "no model is loaded" in body["error"]["message"]) == (503, True)
    assert kept.ask("GET", "/v1/models")[0] == 503
    assert hosts() == []
    assert kept.ask("POST", "/v1/chat/completions", QUESTION)[0] == 200
    assert kept.ask("GET", "/health")[0] == 200


@pytest.mark.slow
def test_half_a_request_has_a_deadline_and_costs_nothing_afterwards(kept: Served) -> None:
    head = b"POST /v1/chat/completions HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nContent-Length: 900\r\n"
    for piece in (b"", head, head + b"\r\n{", b"GET / HT"):
        for _ in range(10):
            with socket.create_connection(("127.0.0.1", kept.port)) as connection:
                connection.sendall(piece)
    with socket.create_connection(("127.0.0.1", kept.port)) as dripping:
        dripping.settimeout(0.5)
        with ends_within(100), contextlib.suppress(ConnectionError):
            while True:
                dripping.sendall(b"G")
                with contextlib.suppress(TimeoutError):
                    if not dripping.recv(100):
                        break
    count = len(list(Path(f"/proc/{kept.process.pid}/fd").iterdir()))
    assert count < 40
    assert kept.ask("GET", "/health")[0] == 200


@pytest.mark.slow
def test_the_second_signal_ends_at_once(served: Served) -> None:
    endless = json.dumps({**STORY, "max_tokens": 900, "stream": True}).encode()
    head = b"POST /v1/chat/completions HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n"
    with socket.create_connection(("127.0.0.1", served.port)) as connection:
        connection.sendall(head % len(endless) + endless)
        assert connection.recv(1000).startswith(b"HTTP/1.1 200")
        served.process.send_signal(signal.SIGTERM)
        wait_for(lambda: _is_closed(served.port))
        served.process.send_signal(signal.SIGTERM)
        served.process.communicate(timeout=60)
        assert served.process.returncode == 128 + signal.SIGTERM


def _is_closed(port: int) -> bool:
    """Return whether the server accepts no more connections, as while it drains."""
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) != 0
