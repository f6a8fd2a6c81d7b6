"""Children of a process that is killed: none stays, whatever it computes."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from mixcli.process_state import born

ENDLESS = "{% for a in range(99999) %}{% for b in range(99999) %}{% endfor %}{% endfor %}"
RUN = "from mixcli import python_child\npython_child.run({arguments}, seconds=60)"
RENDER = (
    "import threading\nfrom mixcli.engine.renderer import Conversation, Renderer\n"
    "renderer = Renderer({template!r}, {{}})\n"
    "threading.Thread(target=renderer.render, args=(Conversation(),), daemon=True).start()\n"
    "import time\nwhile renderer._process is None: time.sleep(0.01)\n"
    "print(renderer._process.pid, flush=True)\ntime.sleep(60)"
)
SHOW = "import os\nprint(os.getpid(), file=open({path!r}, 'w'), flush=True)\n"
CODE = {
    "that waits": "import time\ntime.sleep(60)",
    "that computes": "while True: pass",
    "inside C": "import ctypes\nctypes.CDLL(None).sleep(60)",
    "with a child": "from mixcli import python_child\npython_child.run('-c', 'while True: pass', seconds=60)",
}


def killed_with_its_parent(parent: "subprocess.Popen[str]", child: int) -> None:
    assert born(child)
    os.kill(parent.pid, signal.SIGKILL)
    parent.communicate()
    deadline = time.monotonic() + 2
    while born(child):
        assert time.monotonic() < deadline, "it is still there after two seconds"
        time.sleep(0.01)


@pytest.mark.parametrize("doing", CODE)
def test_a_child_ends_with_its_parent(doing: str, tmp_path: Path) -> None:
    shown = tmp_path / "pid"
    code = SHOW.format(path=os.fspath(shown)) + CODE[doing]
    parent = subprocess.Popen(
        [sys.executable, "-c", RUN.format(arguments=f"'-c', {code!r}")], stdout=subprocess.PIPE, text=True
    )
    deadline = time.monotonic() + 10
    while not (shown.exists() and shown.read_text().endswith("\n")):
        assert time.monotonic() < deadline
        time.sleep(0.01)
    killed_with_its_parent(parent, int(shown.read_text()))


@pytest.mark.parametrize("template", ["", ENDLESS], ids=["idle", "in a template"])
def test_a_renderer_ends_with_its_parent(template: str) -> None:
    parent = subprocess.Popen(
        [sys.executable, "-c", RENDER.format(template=template)], stdout=subprocess.PIPE, text=True
    )
    assert parent.stdout is not None
    killed_with_its_parent(parent, int(parent.stdout.readline()))


def test_code_and_modules_run_as_python_runs_them(tmp_path: Path) -> None:
    from mixcli import python_child

    done = python_child.run("-c", "import sys\nprint(__name__, sys.argv[1:])\nsys.exit(7)", "a", seconds=20)
    assert (done.code, done.out) == (7, "__main__ ['a']\n")
    done = python_child.run("-m", "json.tool", "--compact", seconds=20, stdin='{"a": 1}')
    assert (done.code, done.out) == (0, '{"a":1}\n')
    done = python_child.run("-m", "no_such_module", seconds=20)
    assert done.code == 1
    assert "No module named no_such_module" in done.last_words
