"""A port in front of a real host: what it answers while the model loads, to pages, to crowds, and to what is not HTTP."""

import json
import socket
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from mixcli.client.process import Host
from mixcli.serve import connection, exchange
from mixcli.serve.cors import Cors
from mixcli.serve.gate import Gate, names_of
from mixcli.serve.keys import KeyRing
from mixcli.serve.limits import Limits
from tests.conftest import Runner
from tests.support.ports import Port, served
from tests.support.traces import CAPITAL
from tests.support.waiting import wait_for

pytestmark = pytest.mark.model
KEY = "correct-horse-battery-staple"
CHAT = "/v1/chat/completions"
QUESTION: dict[str, Any] = {
    "messages": [{"role": "user", "content": "What is the capital of France?"}],
    "temperature": 0,
    "max_tokens": 8,
}
LONG = {**QUESTION, "max_tokens": 900, "stream": True, "ignore_eos": True}


@pytest.fixture(scope="module")
def port(file_host: Host) -> Iterator[Port]:
    with served(file_host.name.socket) as port:
        yield port


@pytest.mark.slow
def test_the_port_answers_while_the_model_loads(file_host: Host) -> None:
    with served(None) as port, ThreadPoolExecutor(1) as pool:
        port.model.progress(0.42)
        health = port.ask("GET", "/health")
        assert (health.status, health.json["status"], health.json["progress"]) == (503, "loading", 0.42)
        assert "42 %" in health.json["error"]["message"]
        models = port.ask("GET", "/v1/models")
        assert (models.status, models.headers["retry-after"]) == (503, "2")
        waits = pool.submit(port.ask, "POST", CHAT, QUESTION)
        assert port.ask("GET", "/health").status == 503
        assert not waits.done()
        port.model.ready(file_host.name.socket)
        assert waits.result().status == 200
        assert port.ask("GET", "/health").json["status"] == "ready"


def test_who_leaves_while_the_model_loads_is_forgotten(file_host: Host) -> None:
    limits = Limits()
    with served(None, limits=limits) as port:
        raw = json.dumps(QUESTION).encode()
        head = f"POST {CHAT} HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nContent-Length: {len(raw)}\r\n\r\n"
        with port.connect() as client:
            client.sendall(head.encode() + raw)
            wait_for(lambda: limits.n_held == len(raw))
        wait_for(lambda: limits.n_held == 0)
        port.model.ready(file_host.name.socket)
        assert port.ask("POST", CHAT, QUESTION).status == 200


@pytest.mark.parametrize(
    "path", ["/v1/models", "/v1/models/", "/models", "/health", "/health/", "/v1/health"]
)
def test_paths_may_be_spelled_in_several_ways_and_head_is_get_without_a_body(port: Port, path: str) -> None:
    whole, head = port.ask("GET", path), port.ask("HEAD", path)
    assert (whole.status, head.status, head.raw) == (200, 200, b"")
    assert head.headers["content-type"] == whole.headers["content-type"]
    assert port.ask("OPTIONS", path).headers["allow"] == "GET, HEAD, OPTIONS"
    assert whole.headers["x-request-id"] != head.headers["x-request-id"]
    assert port.ask("GET", path, X_Request_Id="mine-7").headers["x-request-id"] == "mine-7"
    assert port.ask("GET", path, X_Request_Id="x" * 500).headers["x-request-id"].startswith("req_")


def test_anthropics_clients_find_the_id_where_they_look_for_it(port: Port) -> None:
    for path, has_it in (("/v1/messages", True), ("/messages/", True), ("/v1/models", False)):
        headers = port.ask("GET", path).headers
        assert headers.get("request-id") == (headers["x-request-id"] if has_it else None)


@pytest.mark.parametrize(("host", "status"), [("127.0.0.1:1", b"200"), ("evil.example", b"403")])
def test_a_target_may_be_a_whole_address_whose_host_counts(port: Port, host: str, status: bytes) -> None:
    """RFC 9112, 3.2.2: the Host header is ignored then."""
    with port.connect() as client:
        client.sendall(
            f"GET http://{host}/v1/models?x=1 HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n".encode()
        )
        assert client.makefile("rb").readline().split()[1] == status


@pytest.mark.parametrize("path", ["/chat/completions", "/v1/chat/completions/", "/chat/completions/"])
def test_a_chat_may_be_asked_without_v1(port: Port, path: str) -> None:
    assert CAPITAL.matches(port.ask("POST", path, QUESTION).json["choices"][0]["message"]["content"])


def test_strangers_learn_only_whether_it_is_ready(file_host: Host) -> None:
    with served(file_host.name.socket, Gate(names_of("0.0.0.0", ()), KeyRing(KEY, None, print))) as port:
        assert set(port.ask("GET", "/health", Host="10.1.2.3").json) == {"status", "progress"}
        assert "model" in port.ask("GET", "/health", x_api_key=KEY).json
        refused = port.ask("POST", CHAT, QUESTION)
        assert (refused.status, refused.json["error"]["code"]) == (401, "invalid_api_key")
        answer = port.ask("POST", CHAT, QUESTION, Host="my-machine.lan:80", Authorization=f"Bearer {KEY}")
        assert answer.status == 200


def test_a_named_page_may_read_answers_and_refusals(file_host: Host) -> None:
    gate = Gate(names_of("127.0.0.1", ()), None, Cors(frozenset({"https://app.example"})))
    with served(file_host.name.socket, gate) as port:
        page = {"Origin": "https://app.example"}
        preflight = port.ask("OPTIONS", CHAT, Access_Control_Request_Method="POST", **page)
        assert (preflight.status, preflight.raw) == (204, b"")
        for answer in (
            preflight,
            port.ask("POST", CHAT, QUESTION, **page),
            port.ask("POST", CHAT, {**QUESTION, "stream": True}, **page),
            port.ask("GET", "/nowhere", **page),
            port.ask("POST", CHAT, b"{", **page),
        ):
            assert answer.headers["access-control-allow-origin"] == "https://app.example"
            assert answer.headers["vary"] == "Origin"
        other = port.ask("GET", "/v1/models", Origin="https://evil.example")
        assert (other.status, "access-control-allow-origin" in other.headers) == (403, False)


def test_a_key_has_its_share_and_others_theirs(file_host: Host) -> None:
    limits = Limits(max_concurrency=2)
    with served(file_host.name.socket, limits=limits) as port:
        raw = json.dumps(LONG).encode()
        head = f"POST {CHAT} HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer a\r\nContent-Type: application/json\r\nContent-Length: {len(raw)}\r\n\r\n"
        streams = [port.connect() for _ in range(2)]
        for stream in streams:
            stream.sendall(head.encode() + raw)
            assert stream.recv(1 << 12).startswith(b"HTTP/1.1 200")
        crowded = port.ask("POST", CHAT, QUESTION, Authorization="Bearer a")
        assert (crowded.status, crowded.headers["retry-after"]) == (429, "1")
        assert crowded.json["error"]["code"] == "rate_limit_exceeded"
        assert port.ask("GET", "/v1/models", Authorization="Bearer a").status == 200, "a look is free"
        assert port.ask("POST", CHAT, QUESTION, Authorization="Bearer b").status == 200
        for stream in streams:
            stream.close()
        wait_for(
            lambda: (
                port.ask("POST", CHAT, {**QUESTION, "max_tokens": 1}, Authorization="Bearer a").status == 200
            )
        )
        wait_for(lambda: limits.n_held == 0)


@pytest.mark.slow
def test_half_open_connections_keep_nobody_out(port: Port, monkeypatch: pytest.MonkeyPatch) -> None:
    """Beyond the limit the connection goes that has waited longest; one that is served stays."""
    monkeypatch.setattr(connection.GateConnection, "max_connections", 40)
    raw = json.dumps({**LONG, "max_tokens": 60}).encode()
    head = f"POST {CHAT} HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nContent-Length: {len(raw)}\r\n"
    with port.connect() as stream:
        stream.sendall(head.encode() + b"\r\n" + raw)
        assert stream.recv(1 << 12).startswith(b"HTTP/1.1 200")
        pieces = (b"", b"GET / HT", head.encode(), head.encode() + b"\r\n{")
        half = [port.connect() for _ in range(1000)]
        try:
            for number, client in enumerate(half):
                try:
                    client.sendall(pieces[number % 4])
                except ConnectionError:
                    continue  # it had to go
            assert port.ask("POST", CHAT, {**QUESTION, "max_tokens": 1}).status == 200
        finally:
            for client in half:
                client.close()
        tail = b""
        while not tail.endswith(b"data: [DONE]\n\n\r\n0\r\n\r\n"):
            piece = stream.recv(1 << 14)
            assert piece, tail[-200:]
            tail = (tail + piece)[-400:]


@pytest.mark.parametrize(
    "raw",
    [
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + b"\x00" * 500,  # the beginning of TLS
        b"\xff" * 1000 + b"\r\n\r\n",
        b"GET /\x80 HTTP/1.1\r\nHost: localhost\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: localhost\r\nX: " + b"x" * 70_000,
        b"POST / HTTP/1.1\r\nHost: localhost\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\n",
        b"GET / HTTP/1.1\r\n\r\n",
    ],
    ids=["tls", "bytes", "path", "head", "lengths", "no host"],
)
def test_what_is_not_http_gets_an_error_in_openais_form(port: Port, raw: bytes) -> None:
    with port.connect() as client:
        client.sendall(raw)
        answer = b""
        while piece := client.recv(1 << 16):
            answer += piece
    head, _, body = answer.partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 400"), head
    assert b"\r\nx-request-id: req_" in head
    assert json.loads(body)["error"]["type"] == "invalid_request_error"


def test_a_refused_request_is_not_read_to_its_end(file_host: Host, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without a key nobody holds a connection with a body that never ends, and who sends it gets the answer."""
    monkeypatch.setattr(exchange, "LINGER", 0.2)
    limits = Limits()
    gate = Gate(names_of("0.0.0.0", ()), KeyRing(KEY, None, print))
    head = (
        f"POST {CHAT} HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: 60000000\r\n"
    )
    with served(file_host.name.socket, gate, limits) as port:
        for extra in ("", "Expect: 100-continue\r\n"):
            with port.connect() as client:
                client.sendall((head + extra + "\r\n").encode())
                answer = b""
                while piece := client.recv(1 << 16):
                    answer += piece
            assert answer.startswith(b"HTTP/1.1 401"), answer
        assert limits.n_held == 0
        with port.connect() as client:
            sender = threading.Thread(target=_send_slowly, args=(client, head.encode() + b"\r\n"))
            sender.start()
            assert client.recv(1 << 12).startswith(b"HTTP/1.1 401")
            sender.join()


def _send_slowly(client: socket.socket, head: bytes) -> None:
    client.sendall(head)
    try:
        for _ in range(100):
            client.sendall(b"x" * 100)
            time.sleep(0.01)
    except ConnectionError:
        pass


def test_all_bodies_together_have_a_limit(file_host: Host) -> None:
    limits = Limits(max_held=1000)
    with served(file_host.name.socket, limits=limits) as port:
        text = [{"role": "user", "content": "x" * 2000}]
        refused = port.ask("POST", CHAT, {**QUESTION, "messages": text})
        assert (refused.status, refused.headers["retry-after"]) == (503, "2")
        assert port.ask("POST", CHAT, QUESTION).status == 200
        wait_for(lambda: limits.n_held == 0)


def test_a_body_that_does_not_end_is_given_up(port: Port, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(exchange, "WHOLE_BODY", 0.2)
    with port.connect() as client:
        client.sendall(
            f"POST {CHAT} HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nContent-Length: 9\r\n\r\n{{".encode()
        )
        answer = client.recv(1 << 12)
    assert answer.startswith(b"HTTP/1.1 408"), answer


@pytest.mark.slow
def test_the_terminal_offers_tools_to_another_server(port: Port, mixcli: Runner, tmp_path: Path) -> None:
    schema = {"type": "object", "properties": {"city": {"enum": ["Ulm"]}}, "required": ["city"]}
    (tmp_path / "tools.json").write_text(json.dumps([{"name": "weather", "parameters": schema}]))
    tools = ["--tools", str(tmp_path / "tools.json"), "--tool-choice", "weather"]
    done = mixcli("run", "--endpoint", f"http://127.0.0.1:{port.number}/v1", *tools, "Weather in Ulm?")
    assert done.returncode == 0, done.stderr
    call = json.loads(done.stdout)
    assert (call["name"], call["arguments"]) == ("weather", {"city": "Ulm"})
