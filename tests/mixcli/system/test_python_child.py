"""Processes of our own code: what they get, how they end, and that none outlives a parent that is killed."""

import json
import os
import selectors
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from mixcli.system import python_child
from mixcli.system.process_state import born
from tests.support.llama_workers import free_port, listens
from tests.support.waiting import ends_within, wait_for

ENDLESS = "{% for a in range(99999) %}{% for b in range(99999) %}{% endfor %}{% endfor %}"
RUN = "from mixcli.system import python_child\npython_child.run({arguments}, seconds=600)"
RENDER = (
    "import threading\nfrom mixcli.prompts.jinja_process import TemplateVariables, TemplateProcess\n"
    "renderer = TemplateProcess({template!r}, {{}})\n"
    "threading.Thread(target=renderer.render, args=(TemplateVariables(),), daemon=True).start()\n"
    "import time\nwhile renderer._process is None: time.sleep(0.01)\n"
    "print(renderer._process.pid, flush=True)\ntime.sleep(600)"
)
SHOW = "import os\nprint(os.getpid(), file=open({path!r}, 'w'), flush=True)\n"
CODE = {
    "that waits": "import time\ntime.sleep(600)",
    "that computes": "while True: pass",
    "inside C": "import ctypes\nctypes.CDLL(None).sleep(600)",
    "with a child": "from mixcli.system import python_child\npython_child.run('-c', 'while True: pass', seconds=600)",
}


def killed_with_its_parent(parent: "subprocess.Popen[str]", child: int) -> None:
    assert born(child)
    os.kill(parent.pid, signal.SIGKILL)
    parent.communicate()
    wait_for(lambda: not born(child))


@pytest.mark.parametrize("doing", CODE)
def test_a_child_ends_with_its_parent(doing: str, tmp_path: Path) -> None:
    shown = tmp_path / "pid"
    code = SHOW.format(path=os.fspath(shown)) + CODE[doing]
    parent = subprocess.Popen(
        [sys.executable, "-c", RUN.format(arguments=f"'-c', {code!r}")], stdout=subprocess.PIPE, text=True
    )
    wait_for(lambda: shown.exists() and shown.read_text().endswith("\n"))
    killed_with_its_parent(parent, int(shown.read_text()))


@pytest.mark.parametrize("template", ["", ENDLESS], ids=["idle", "in a template"])
def test_a_renderer_ends_with_its_parent(template: str) -> None:
    parent = subprocess.Popen(
        [sys.executable, "-c", RENDER.format(template=template)], stdout=subprocess.PIPE, text=True
    )
    assert parent.stdout is not None
    killed_with_its_parent(parent, int(parent.stdout.readline()))


SECRETS = {
    "HF_TOKEN": "hf_x",
    "HUGGING_FACE_HUB_TOKEN": "x",
    "AWS_SECRET_ACCESS_KEY": "x",
    "AWS_PROFILE": "x",
    "OPENAI_API_KEY": "x",
    "MIXCLI_API_KEY": "x",
    "SSH_AUTH_SOCK": "x",
    "PYTHONSTARTUP": "x",
    "LLAMA_API_KEY": "x",
}
NEEDED = {
    "LD_LIBRARY_PATH": "/x",
    "CUDA_VISIBLE_DEVICES": "1",
    "GGML_NO_BACKTRACE": "1",
    "OMP_NUM_THREADS": "1",
}


def test_a_child_has_no_secrets_and_what_it_needs(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for key, value in {
        **SECRETS,
        **NEEDED,
        "PYTHONPATH": f"{tmp_path}{os.pathsep}.{os.pathsep}/lib/x",
    }.items():
        monkeypatch.setenv(key, value)
    monkeypatch.chdir(tmp_path)
    (tmp_path / "json.py").write_text("raise SystemExit('planted')")
    done = python_child.run("-c", "import json, os; print(json.dumps(dict(os.environ)))", seconds=60)
    assert done.succeeded, done.err
    seen = json.loads(done.out)
    assert not SECRETS.keys() & seen.keys()
    assert NEEDED.items() <= seen.items()
    assert seen["PYTHONPATH"] == "/lib/x"


def test_a_child_ends_in_time_with_all_that_it_started() -> None:
    code = "import os, sys, time\npid = os.fork()\nif pid: print(pid, flush=True)\ntime.sleep(600)"
    done = python_child.run("-c", code, seconds=5)
    assert done.timed_out
    wait_for(lambda: not born(int(done.out)))
    with ends_within(100):  # when it has written too much, not when its time is over
        endless = python_child.run("-c", "while True: print('x' * 100000)", seconds=600)
    assert endless.timed_out
    assert len(endless.out) < 2 * python_child.MAX_OUTPUT


@pytest.mark.skipif(not hasattr(os, "pidfd_open"), reason="Linux tells when a child has ended")
def test_a_child_that_says_nothing_is_left_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    """Ten looks a second would take a core from a child that computes with all. Its own child keeps the pipes open."""
    n_looks = 0

    class Counting(selectors.DefaultSelector):
        def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
            nonlocal n_looks
            n_looks += 1
            return super().select(timeout)

    monkeypatch.setattr(selectors, "DefaultSelector", Counting)
    code = "import os, time\nif os.fork():\n    time.sleep(2)\n    os._exit(0)\ntime.sleep(600)"
    done = python_child.run("-c", code, seconds=60)
    assert done.succeeded, done.last_words
    assert n_looks <= 8


CTX = ("-m", "demo", "--ctx", "512")
# between them they start every kind of child
WAYS: dict[str, tuple[tuple[str, ...], str]] = {
    "doctor": ((), ""),
    "tune": ((*CTX, "--seconds", "0"), ""),
    "chat": ((*CTX, "--max-tokens", "2", "--keep-alive", "0", "--ephemeral"), "Hello\n"),
    "worker": (("--listen", "127.0.0.1:PORT"), ""),
}


@pytest.mark.model
@pytest.mark.slow
def test_modules_in_the_present_folder_run_in_no_child(
    with_demo: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The command itself is a script of the environment, as people have it; `python -m` would put the folder first by itself."""
    here, planted = tmp_path / "here", tmp_path / "planted"
    here.mkdir()
    for module in ("json", "numpy", "llama_cpp", "jinja2", "selectors", "mixcli", "runpy"):
        (here / f"{module}.py").write_text(f"open({os.fspath(planted)!r}, 'a').write(__name__ + '\\n')\n")
    monkeypatch.chdir(here)
    monkeypatch.setenv("HF_TOKEN", "hf_x")
    port = free_port()
    for way, (args, said) in WAYS.items():
        command = [Path(sys.executable).with_name("mixcli"), way]
        with subprocess.Popen(
            [*command, *(arg.replace("PORT", f"{port}") for arg in args)],
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
        ) as process:
            if way == "worker":
                wait_for(lambda: listens(port))
                process.terminate()
            _, err = process.communicate(said, timeout=60)
        assert not planted.exists(), (way, err)
        assert process.returncode == 0 or way in ("doctor", "worker"), (way, err)


def test_code_and_modules_run_as_python_runs_them(tmp_path: Path) -> None:
    done = python_child.run("-c", "import sys\nprint(__name__, sys.argv[1:])\nsys.exit(7)", "a", seconds=60)
    assert (done.code, done.out) == (7, "__main__ ['a']\n")
    done = python_child.run("-m", "json.tool", "--compact", seconds=60, stdin='{"a": 1}')
    assert (done.code, done.out) == (0, '{"a":1}\n')
    done = python_child.run("-m", "no_such_module", seconds=60)
    assert done.code == 1
    assert "No module named no_such_module" in done.last_words
