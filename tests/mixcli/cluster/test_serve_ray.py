"""mixcli serve --ray on a cluster of two nodes: conversations keep to a replica, a killed node costs what it was computing, and another one takes its place."""

import importlib.util
import json
import os
import re
import signal
import subprocess
import sys
import threading
from collections import Counter
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from mixcli.client.process import hosts
from mixcli.serve.addresses import bound
from tests.conftest import ROOT, Runner
from tests.support.ray_cluster import RayCluster
from tests.support.served import Port, Served
from tests.support.synthetic import resized, shape_named, write_model
from tests.support.waiting import wait_for

pytestmark = [
    pytest.mark.skipif(importlib.util.find_spec("ray") is None, reason="the extra ray is not installed"),
    pytest.mark.slow,
]
CHAT = "/v1/chat/completions"
START = 300.0  # seconds for a node, and a replica on it, to start
N_REQUESTS, N_CLIENTS = 200, 8
KEY = "a-key-of-the-tests-of-ray"


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_model(
        tmp_path_factory.mktemp("tiny") / "tiny.gguf", resized(shape_named("mid", 1), 512, 256)
    )


@pytest.fixture
def cluster(mixcli: Runner, monkeypatch: pytest.MonkeyPatch) -> Iterator[RayCluster]:
    monkeypatch.setenv("MIXCLI_API_KEY", KEY)  # of the nodes, for the config file
    started = RayCluster()
    monkeypatch.delenv("MIXCLI_API_KEY")
    yield started
    started.close()


def of_replicas(served: Served, name: str) -> Mapping[str, float]:
    """Return a counter of /metrics by replica."""
    page = str(served.ask("GET", "/metrics")[1])
    pattern = rf'^mixcli_{name}(?:_total)?{{[^}}]*replica="([^"]+)"[^}}]*}} ([\d.e+]+)$'
    found: Counter[str] = Counter()
    for replica, value in re.findall(pattern, page, re.MULTILINE):
        found[replica] += float(value)
    return found


def n_replicas(served: Served) -> int:
    return len(served.ask("GET", "/health")[1].get("replicas", ()))


def turn(served: Served, messages: list[dict[str, str]]) -> None:
    body = {"messages": messages, "max_tokens": 4}
    status, answer = served.ask("POST", CHAT, body)
    assert status == 200, answer
    messages += [{"role": "assistant", "content": "Well."}, {"role": "user", "content": "And then?"}]


def conversations_keep_to_a_replica(served: Served) -> None:
    for number in range(6):
        messages = [{"role": "user", "content": f"Story {number}: {'once upon a time ' * 8}"}]
        before, cached = of_replicas(served, "requests"), of_replicas(served, "prompt_tokens_cached")
        for _ in range(3):
            turn(served, messages)
        after = of_replicas(served, "requests")
        (own,) = [one for one in after if after[one] != before.get(one, 0)]
        assert after[own] - before.get(own, 0) == 3
        assert of_replicas(served, "prompt_tokens_cached")[own] - cached.get(own, 0) > 30, "prefix hits"


class Load:
    """Many requests of several clients; `ends` has how each ended: an answer, an error in OpenAI's form, or what else came."""

    def __init__(self, served: Served) -> None:
        self._served = served
        self._lock = threading.Lock()
        self.ends: list[str] = []

    def ask(self, number: int) -> None:
        body = {
            "messages": [{"role": "user", "content": f"Question {number}: {'why ' * (number % 7)}?"}],
            "max_tokens": 12,
            "stream": number % 2 == 0,
        }
        try:
            end = self._end(*self._served.ask("POST", CHAT, body))
        except Exception as error:
            end = repr(error)
        with self._lock:
            self.ends.append(end)

    def _end(self, status: int, answer: Any) -> str:
        if isinstance(answer, str):  # a stream
            events = [line.removeprefix("data: ") for line in answer.splitlines() if line]
            if events[-1] == "[DONE]":
                return "answer"
            answer = json.loads(events[-1])
        if status == 200 and answer.get("choices"):
            return "answer"
        return "error" if answer["error"]["message"] and answer["error"]["type"] else f"{status} {answer}"


def a_killed_node_costs_what_it_computed(served: Served, cluster: RayCluster) -> None:
    load = Load(served)
    with ThreadPoolExecutor(N_CLIENTS) as pool:
        for number in range(N_REQUESTS):
            pool.submit(load.ask, number)
        wait_for(lambda: len(load.ends) >= 40, START)
        cluster.kill_a_node()
    ends = Counter(load.ends)
    assert sum(ends.values()) == N_REQUESTS
    assert set(ends) <= {"answer", "error"}, ends
    assert ends["error"] <= N_CLIENTS, "no more than were in flight"


def n_ready(served: Served) -> int:
    states = served.ask("GET", "/health")[1].get("replicas", ())
    return sum(state["status"] == "ready" for state in states)


def a_host_that_hangs_is_replaced(served: Served, cluster: RayCluster) -> None:
    """Its replica with it, while another node joins: what hangs neither answers nor ends."""
    (host,) = wait_for(lambda: len(found := hosts()) == 1 and found)
    os.kill(host.pid, signal.SIGSTOP)
    assert cluster.do("add") == "done"
    wait_for(lambda: host.pid not in {one.pid for one in hosts()} and n_ready(served) == 2, START)
    assert (
        served.ask("POST", CHAT, {"messages": [{"role": "user", "content": "Hi"}], "max_tokens": 4})[0] == 200
    )


@pytest.mark.model
def test_two_nodes_one_of_which_is_killed(cluster: RayCluster, tiny: Path) -> None:
    """One test, because a cluster takes half a minute to start."""
    missing = serve_again(cluster, "nothing-like-it")
    assert (missing.returncode, "Traceback" in missing.stderr) == (2, False), missing.stderr
    assert re.search(r"node [\d.]+: .*nothing-like-it", missing.stderr)
    assert missing.stdout == "", "what Ray prints is no answer"
    served = Served("--port", "0", "--ray", cluster.address, n_ctx=512, model=str(tiny))
    try:
        wait_for(lambda: n_replicas(served) == 2, START)
        status, listed = served.ask("GET", "/v1/models")
        assert (status, len(listed["data"])) == (200, 1)
        assert served.ask("GET", "/v1/models", Host="evil.example")[0] == 403, "the gate is that of `serve`"
        assert served.ask("POST", CHAT, {"messages": 1})[0] == 400
        conversations_keep_to_a_replica(served)
        a_killed_node_costs_what_it_computed(served, cluster)
        assert served.ask("GET", "/health")[0] == 200
        a_host_that_hangs_is_replaced(served, cluster)
        again = serve_again(cluster, str(tiny))
        assert again.returncode == 1, again.stderr
        assert "serves this model on the cluster" in again.stderr
        assert n_replicas(served) == 2, "they are not the second command's to end"
        code, err = served.end()
        assert (code, "Traceback" in err) == (0, False), err
        assert "1 replica of 2 running" in err
    finally:
        served.process.kill()
        served.process.communicate()
    assert cluster.do("apps") == "none"
    wait_for(lambda: not hosts(), START)
    the_config_file_serves(cluster, tiny)


def serve_again(cluster: RayCluster, model: str) -> "subprocess.CompletedProcess[str]":
    """Run the command to its end where it is refused."""
    command = [sys.executable, "-m", "mixcli", "serve", "-m", model, "--ctx", "512", "--port", "0"]
    return subprocess.run(
        [*command, "--ray", cluster.address], capture_output=True, text=True, timeout=START, check=False
    )


def the_config_file_serves(cluster: RayCluster, tiny: Path) -> None:
    """`serve run` with the file of deploy/: Ray's proxy, the gate with its key, one replica."""
    import yaml

    config = yaml.safe_load((ROOT / "deploy" / "ray" / "serve.yaml").read_text())
    with bound("127.0.0.1", 0) as listener:
        config["http_options"]["port"] = port = listener.getsockname()[1]
    config["applications"][0]["args"] |= {"model": str(tiny), "ctx": 512}
    file = tiny.with_name("serve.yaml")
    file.write_text(yaml.safe_dump(config))
    command = [str(Path(sys.executable).with_name("serve")), "run", str(file), "--non-blocking"]
    for _ in range(
        3
    ):  # Ray waits 60 s for its proxies, no longer; they keep starting, and the next one finds them
        done = subprocess.run(
            [*command, "--address", cluster.address],
            capture_output=True,
            text=True,
            timeout=START,
            check=False,
        )
        if "Proxies not available after" not in done.stderr:
            break
    assert done.returncode == 0, done.stderr
    served = Port(port)
    hello = {"messages": [{"role": "user", "content": "Hi"}], "max_tokens": 4}

    def status() -> int:
        try:
            return served.ask("POST", CHAT, hello, Authorization=f"Bearer {KEY}")[0]
        except OSError:
            return 0

    wait_for(lambda: status() == 200, START)
    assert served.ask("POST", CHAT, hello)[0] == 401
    streamed = served.ask("POST", CHAT, {**hello, "stream": True}, x_api_key=KEY)
    assert streamed[0] == 200
    assert streamed[1].rstrip().endswith("data: [DONE]")
