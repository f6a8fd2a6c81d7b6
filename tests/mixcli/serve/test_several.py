"""Several models behind one port, with real hosts: the right one answers, memory is kept to, and a fault of one is no fault of another."""

import json
import os
import random
import signal
import socket
import threading
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from mixcli.client.process import hosts
from mixcli.errors import DoesNotFit, UsageError
from mixcli.host.protocol.port_state import PortState
from mixcli.serve import model_lifecycle
from mixcli.serve.model_field import LARGE
from mixcli.store.store import StoredModel
from mixcli.system.json_parts import MAX_PARTS
from tests.mixcli.serve.test_kills import resident
from tests.support.fleets import NEEDS, VOCABULARIES, FleetPort, served_fleet, small_models
from tests.support.waiting import wait_for

pytestmark = pytest.mark.slow  # they wait for loads
COMPLETIONS = "/v1/completions"
NAMES = list(VOCABULARIES)


@pytest.fixture(scope="module")
def stored(tmp_path_factory: pytest.TempPathFactory) -> list[StoredModel]:
    return small_models(tmp_path_factory.mktemp("models"))


@pytest.fixture(scope="module")
def port(stored: list[StoredModel], tmp_path_factory: pytest.TempPathFactory) -> Iterator[FleetPort]:
    """One port for the tests that leave it as it was; two of its models fit, and the third makes room."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MIXCLI_HOME", str(tmp_path_factory.mktemp("home")))
        with served_fleet(stored, n_fitting=2.5, aliases={"gpt-4o": "green"}) as port:
            yield port


def body_for(name: str, **more: Any) -> dict[str, Any]:
    return {"model": name, "prompt": "once", "max_tokens": 4, "temperature": 0, "ignore_eos": True, **more}


def label_of(port: FleetPort, name: str) -> str:
    model = port.fleet.served_models.find(name)
    assert model is not None
    return model.label


def is_right(port: FleetPort, name: str, answer: Any) -> bool:
    """Whether an answer names its model."""
    return bool(answer["model"] == label_of(port, name))


def is_answered_rightly(port: FleetPort, name: str, number: int) -> bool:
    """Whether a request comes back as only that model can answer: by its label, by its last token, or by the first one that it lacks."""
    if number % 3 == 0:
        return is_right(port, name, port.ask("POST", COMPLETIONS, body_for(name)).json)
    token = VOCABULARIES[name] - number % 3 + 1
    answer = port.ask("POST", "/detokenize", {"model": name, "tokens": [token]})
    return answer.status == (200 if number % 3 == 2 else 400)


def state(port: FleetPort, name: str) -> dict[str, Any]:
    return next(
        one for one in port.ask("GET", "/health").json["models"] if one["model"] == label_of(port, name)
    )


def test_a_body_of_too_many_parts_is_refused_before_a_model_is_looked_for(port: FleetPort) -> None:
    answer = port.ask("POST", COMPLETIONS, b'{"user": [' + b"{}," * MAX_PARTS + b'{}], "model": "red"}')
    assert answer.status == 400
    assert "the limit is 2,097,152; shorten it" in answer.json["error"]["message"]


def test_the_model_of_a_request_answers_it(port: FleetPort) -> None:
    for name, n_vocab in VOCABULARIES.items():
        answer = port.ask("POST", COMPLETIONS, body_for(name))
        assert answer.status == 200, answer.raw
        assert is_right(port, name, answer.json)
        token = {"model": name, "tokens": [n_vocab - 1]}
        assert port.ask("POST", "/detokenize", token).status == 200
        assert port.ask("POST", "/detokenize", {**token, "tokens": [n_vocab]}).status == 400
    assert is_right(port, "green", port.ask("POST", COMPLETIONS, body_for("GPT-4o")).json)
    assert is_right(
        port, "red", port.ask("POST", COMPLETIONS, {"logit_bias": {}, **body_for("Red.gguf")}).json
    )


def test_an_unknown_model_and_none_are_refused_in_the_form_of_each_api(port: FleetPort) -> None:
    unknown = port.ask("POST", COMPLETIONS, body_for("grene"))
    assert (unknown.status, unknown.json["error"]["code"], unknown.json["error"]["param"]) == (
        404,
        "model_not_found",
        "model",
    )
    assert "did you mean " in unknown.json["error"]["message"]
    anthropic = port.ask("POST", "/v1/messages", {"model": "claude", "max_tokens": 5, "messages": []})
    assert (anthropic.status, anthropic.json["type"], anthropic.json["error"]["type"]) == (
        404,
        "error",
        "not_found_error",
    )
    for body in ({"prompt": "x"}, {"prompt": "x", "model": None}):
        unnamed = port.ask("POST", COMPLETIONS, body)
        assert unnamed.status == 400
        assert all(name in unnamed.json["error"]["message"] for name in NAMES)
    assert port.ask("POST", COMPLETIONS, {"model": 7, "prompt": "x"}).json["error"]["code"] == "invalid_type"


@pytest.mark.parametrize(
    ("body", "words"),
    [
        (b"{", "body is not JSON: "),
        (b'{"prompt": "x", "model": "red"', "body is not JSON: "),
        (b'{"prompt": "x"} {', "body is not JSON: Extra data"),
        (b'{"prompt": "\xff"}', "body is not UTF-8: byte 12"),
        (b"[]", "body must be a JSON object"),
        (b'{"prompt": "%s", "x": {"y": 1}' % (b"x" * LARGE), "it ends inside an object, after 262,"),
        (b'{"prompt": "%s"}, 1' % (b"x" * LARGE), "extra data after byte 262,"),
    ],
)
def test_a_body_that_is_not_json_is_named_as_that(port: FleetPort, body: bytes, words: str) -> None:
    """Not as a request that names no model: there the client would look at the wrong place."""
    refused = port.ask("POST", COMPLETIONS, body)
    assert refused.status == 400
    assert refused.json["error"]["message"].startswith(words) or words in refused.json["error"]["message"]
    assert "names no model" not in refused.json["error"]["message"]


def test_models_are_listed_with_their_states_and_aliases(port: FleetPort) -> None:
    for name in ("green", "red"):
        assert port.ask("POST", COMPLETIONS, body_for(name)).status == 200
    listed = {one["id"].rpartition("/")[2]: one for one in port.ask("GET", "/v1/models").json["data"]}
    assert [*listed] == ["red.gguf", "green.gguf", "gpt-4o", "blue.gguf"]
    assert {name: one["status"]["value"] for name, one in listed.items()} == {
        "red.gguf": "loaded", "green.gguf": "loaded", "gpt-4o": "loaded", "blue.gguf": "unloaded",
    }  # fmt: skip
    assert {one["max_model_len"] for one in listed.values()} == {256}
    assert {one["display_name"] == one["id"] for one in listed.values()} == {True}
    assert listed["gpt-4o"]["root"] == listed["green.gguf"]["id"]
    assert port.ask("GET", "/v1/models/gpt-4o").json == listed["gpt-4o"]
    assert port.ask("GET", "/v1/models/blue").json == listed["blue.gguf"]
    assert port.ask("GET", "/v1/models/purple").json["error"]["code"] == "model_not_found"
    assert port.ask("GET", "/openapi.json").status == 200


def test_health_and_metrics_tell_each_model_apart(port: FleetPort) -> None:
    health = port.ask("GET", "/health")
    assert (health.status, health.json["status"]) == (200, "ready")
    assert len(health.json["models"]) == 3
    assert health.json["memory"]["host"]["limit"] == int(2.5 * NEEDS)
    assert not {"pid", "path"} & set(health.json["models"][0])
    assert port.ask("POST", COMPLETIONS, body_for("red")).status == 200
    page = port.ask("GET", "/metrics").raw.decode()
    red = label_of(port, "red")
    assert f'mixcli_requests_total{{finished_reason="length",model="{red}"}}' in page
    assert f'mixcli_model_loaded{{model="{red}"}} 1.0' in page
    assert page.count("# TYPE mixcli_generation_tokens_total counter") == 1
    assert 'mixcli_memory_limit_bytes{device="host"}' in page


def test_the_port_tells_programs_of_its_user_of_its_models(port: FleetPort) -> None:
    assert port.ask("POST", COMPLETIONS, body_for("red")).status == 200
    state = port.models.state()
    assert PortState.of(json.loads(json.dumps(state.to_json()))) == state
    red = next(one for one in state.models if one.model == label_of(port, "red"))
    assert (red.status, red.n_answering, red.n_waiting, red.expires_in) == ("loaded", 0, 0, None)
    assert (state.status, len(state.models), state.memory["host"].limit) == ("ready", 3, int(2.5 * NEEDS))


def test_a_hundred_requests_for_three_models_in_memory_for_one_and_a_half(
    home: Path, stored: list[StoredModel]
) -> None:
    """None is lost, each answer is the right model's, and what is loaded never takes more than the limit, planned or measured."""
    chosen = random.Random(5).choices(NAMES, k=100)
    most: Counter[str] = Counter()
    over = threading.Event()

    def watch() -> None:
        while not over.wait(0.1):
            running = [host for host in hosts() if Path(f"/proc/{host.pid}/status").exists()]
            most["hosts"] = max(most["hosts"], len(running))
            try:
                most["bytes"] = max(most["bytes"], sum(resident(host.pid) for host in running))
            except (OSError, StopIteration):  # one has ended meanwhile
                continue

    with served_fleet(stored, n_fitting=1.5) as port, ThreadPoolExecutor(12) as pool:
        watcher = threading.Thread(target=watch)
        watcher.start()
        try:
            assert all(pool.map(lambda number: is_answered_rightly(port, chosen[number], number), range(100)))
        finally:
            over.set()
            watcher.join()
        assert port.ask("GET", "/health").json["memory"]["host"]["free"] >= 0
    assert most["hosts"] == 1
    assert 0 < most["bytes"] < NEEDS


def test_a_stream_is_told_of_the_load_and_its_model_is_not_unloaded_under_it(
    home: Path, stored: list[StoredModel]
) -> None:
    with served_fleet(stored[:2], n_fitting=1.5) as port, ThreadPoolExecutor(2) as pool:
        long = json.dumps(body_for("red", max_tokens=200, stream=True)).encode()
        head = f"POST {COMPLETIONS} HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nContent-Length: {len(long)}\r\nConnection: close\r\n\r\n"
        with socket.create_connection(("127.0.0.1", port.number), 60) as stream:
            stream.sendall(head.encode() + long)
            assert stream.recv(100).startswith(b"HTTP/1.1 200")
            (host,) = hosts()
            os.kill(host.pid, signal.SIGSTOP)  # it is slow
            waiting = pool.submit(port.ask, "POST", COMPLETIONS, body_for("green", stream=True))
            slots = port.models._slots  # /health would ask the stopped host
            wait_for(lambda: slots[label_of(port, "green")].waiters)
            assert slots[label_of(port, "red")].n_running == 1
            threading.Timer(1.5, os.kill, (host.pid, signal.SIGCONT)).start()
            rest = b""
            while piece := stream.recv(1 << 16):
                rest += piece
        assert b"data: [DONE]" in rest
        answer = waiting.result()
        assert answer.raw.startswith(b": waiting for memory: ")
        assert b"data: [DONE]" in answer.raw
        assert answer.headers["content-type"].startswith("text/event-stream")


def test_a_damaged_file_and_a_killed_host_concern_one_model_each(
    home: Path, stored: list[StoredModel], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    own = small_models(tmp_path)
    whole = own[1].path.read_bytes()
    with served_fleet(own) as port:
        own[1].path.write_bytes(whole[:1000])
        for _ in range(2):
            refused = port.ask("POST", COMPLETIONS, body_for("green", stream=True))
            assert (refused.status, "retry-after" in refused.headers) == (503, True)
            assert "green.gguf cannot be loaded" in refused.json["error"]["message"]
        assert state(port, "green")["status"] == "failed"
        assert "green" in state(port, "green")["reason"]
        assert port.ask("POST", COMPLETIONS, body_for("red")).status == 200
        own[1].path.write_bytes(whole)
        slot = port.models._slots[str(own[1].path)]
        assert slot.failure is not None
        monkeypatch.setattr(slot, "failure", model_lifecycle.Failure("", 0.0, slot.failure.error))
        assert port.ask("POST", COMPLETIONS, body_for("green")).status == 200
        killed = next(host for host in hosts() if "red" in str(host.model))
        os.kill(killed.pid, signal.SIGKILL)
        wait_for(lambda: state(port, "red")["status"] == "unloaded")
        assert state(port, "green")["status"] == "loaded"
        assert is_right(port, "red", port.ask("POST", COMPLETIONS, body_for("red")).json)
        assert killed.pid not in {host.pid for host in hosts()}


def test_an_unused_model_is_unloaded_and_a_kept_one_is_loaded_at_the_start(
    home: Path, stored: list[StoredModel]
) -> None:
    with served_fleet(stored, n_fitting=2.5, idle_limit=0, kept=["blue"]) as port:
        assert [state(port, name)["status"] for name in NAMES] == ["loaded", "unloaded", "loaded"]
        assert port.ask("POST", COMPLETIONS, body_for("green")).status == 200
        wait_for(lambda: state(port, "green")["status"] == "unloaded")
        assert [state(port, name)["status"] for name in NAMES] == ["unloaded", "unloaded", "loaded"]


def test_what_cannot_be_served_is_refused_before_the_port_is_open(
    home: Path, stored: list[StoredModel]
) -> None:
    for changes, error, words in (
        ({"n_fitting": 0.5}, DoesNotFit, "red.gguf"),
        ({"n_fitting": 1.5, "kept": ["green"]}, DoesNotFit, "beside .*green.gguf"),
        ({"kept": ["purple"]}, UsageError, "--keep purple is not served"),
        ({"aliases": {"gpt-4o": "purple"}}, UsageError, "purple is not served"),
    ):
        with pytest.raises(error, match=words), served_fleet(stored, **changes):  # type: ignore[arg-type]
            pass
    with pytest.raises(UsageError, match="given twice"), served_fleet([stored[0], stored[0]]):
        pass
    assert hosts() == []
