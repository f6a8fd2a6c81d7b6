"""`mixcli serve` with several models as a process: the demo in two quants, and signals while models load."""

import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from mixcli.client.process import hosts
from tests.conftest import Runner, link_demo
from tests.support.fleets import small_models
from tests.support.served import Served
from tests.support.traces import CAPITAL
from tests.support.waiting import wait_for

QUESTION: dict[str, Any] = {
    "messages": [{"role": "user", "content": "What is the capital of France?"}],
    "temperature": 0,
    "max_tokens": 12,
}


@pytest.mark.slow
@pytest.mark.model
def test_the_demo_in_two_quants(
    mixcli: Runner, home: Path, with_demo: Path, demo_path: Callable[[str], Path]
) -> None:
    link_demo(demo_path("Q8_0"), home)
    served = Served("-m", "demo:Q8_0", "--alias", "gpt-4o=demo:Q8_0", "--port", "0", model="demo:Q4_K_M")
    try:
        for name, label in (("demo", "demo:Q4_K_M"), ("gpt-4o", "demo:Q8_0")):
            status, answer = served.ask("POST", "/v1/chat/completions", {**QUESTION, "model": name})
            assert (status, answer["model"]) == (200, label)
            assert CAPITAL.matches(answer["choices"][0]["message"]["content"])
        listed = served.ask("GET", "/v1/models")[1]["data"]
        assert [(one["id"], one["status"]["value"]) for one in listed] == [
            ("demo:Q4_K_M", "loaded"),
            ("demo:Q8_0", "loaded"),
            ("gpt-4o", "loaded"),
        ]
        assert sorted(str(host.model) for host in hosts()) == ["demo:Q4_K_M", "demo:Q8_0"]
        code, err = served.end()
        assert (code, "Traceback" in err) == (0, False), err
        assert "loaded demo:Q8_0 in" in err
    finally:
        served.process.kill()
        served.process.communicate()
    assert hosts() == []


@pytest.mark.slow
def test_ctrl_c_while_the_first_model_loads_leaves_nothing(mixcli: Runner, tmp_path: Path) -> None:
    named = [str(model.path) for model in small_models(tmp_path)]
    command = [sys.executable, "-m", "mixcli", "serve", *named, "--ctx", "256", "--port", "0"]
    process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
    try:
        assert process.stderr is not None
        while "listening on port" not in process.stderr.readline():
            pass
        process.send_signal(signal.SIGINT)
        _, err = process.communicate(timeout=60)
        assert (process.returncode, "Traceback" in err) == (130, False), err
    finally:
        process.kill()
        process.communicate()
    wait_for(lambda: hosts() == [])


def test_options_of_several_models_are_refused_for_one(mixcli: Runner, tmp_path: Path) -> None:
    path = str(small_models(tmp_path)[0].path)
    for option in (["--keep", "red"], ["--alias", "a=red"], ["--keep-alive", "5m"], ["--preload"]):
        done = mixcli("serve", path, *option)
        assert (done.returncode, f"{option[0]} has no effect with one model" in done.stderr) == (2, True)
    for args, words in (
        (["--all", path], "--all cannot be combined with MODEL"),
        ([path, "-m", path], "MODEL cannot be combined with --model"),
        ([path, path], "given twice"),
    ):
        done = mixcli("serve", *args)
        assert (done.returncode, words in done.stderr) == (2, True), done.stderr
