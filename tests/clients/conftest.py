"""One served demo for all client packages, the environments that they are installed in (`make clients`), and what those of Python did."""

import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.conftest import ROOT, link_demo

KEY = "a-key-of-the-tests"
PYTHON = ROOT / ".venv-clients" / "bin" / "python"
DRIVEN = Path(__file__).with_name("driven")
BLOCKS = dict(
    re.findall(
        r"^## (\S+)\n\n```python\n(.*?)^```",
        (ROOT / "docs" / "clients.md").read_text("utf-8"),
        flags=re.M | re.S,
    )
)
NODE_MODULES = ROOT / "build" / "node" / "node_modules"

needs_python_clients = pytest.mark.skipif(
    not PYTHON.parent.parent.joinpath(".ready").exists(),
    reason="the client packages are not installed: run `make clients`",
)
needs_node_clients = pytest.mark.skipif(
    not (shutil.which("node") and all((NODE_MODULES / name).is_dir() for name in ("openai", "ai"))),
    reason="node or its client packages are not installed: run `make clients`",
)


@dataclass(frozen=True)
class ServedDemo:
    """A server with the demo; `url` ends with /v1."""

    url: str

    @property
    def environment(self) -> dict[str, str]:
        """Return the environment for a client: where the server is, no proxy, and no key of somebody else's service."""
        kept = {
            name: value
            for name, value in os.environ.items()
            if not name.upper().endswith(("_PROXY", "_API_KEY", "_BASE_URL"))
        }
        return {
            **kept,
            "MIXCLI_URL": self.url,
            "MIXCLI_KEY": KEY,
            "NO_COLOR": "1",
            "LITELLM_LOCAL_MODEL_COST_MAP": "True",
        }


@pytest.fixture(scope="session")
def served(
    tmp_path_factory: pytest.TempPathFactory, demo_path: Callable[[str], Path]
) -> Iterator[ServedDemo]:
    """Serve the demo behind an API key until all clients are done."""
    home = link_demo(demo_path("Q4_K_M"), tmp_path_factory.mktemp("served") / "home")
    environment = {**os.environ, "MIXCLI_HOME": str(home), "MIXCLI_API_KEY": KEY, "HF_HUB_OFFLINE": "1"}
    mixcli = [sys.executable, "-m", "mixcli"]
    server = subprocess.Popen(
        [*mixcli, "serve", "-m", "demo", "--ctx", "2048", "--port", "0"],
        env=environment,
        stdin=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert server.stderr is not None
    said = ""
    while not (found := re.search(r"serving .* at (http://127\.0\.0\.1:\d+/v1)", said)):
        line = server.stderr.readline()
        assert line, said
        said += line
    yield ServedDemo(found[1])
    server.terminate()
    server.communicate(timeout=60)
    subprocess.run([*mixcli, "stop", "--all", "-q"], env=environment, check=False)


@dataclass(frozen=True)
class Driven:
    """How the process of the Python packages ended, what it said, and what each block of docs/clients.md printed and failed with."""

    code: int
    said: str
    ends: dict[str, tuple[str, str]]


@pytest.fixture(scope="session")
def driven(served: ServedDemo, tmp_path_factory: pytest.TempPathFactory) -> Driven:
    """Run the files of driven/ and the blocks of the page in one process, which imports the packages once."""
    folder = tmp_path_factory.mktemp("blocks")
    blocks = {
        name: block.replace("http://127.0.0.1:8080", served.url.removesuffix("/v1")).replace(
            '"none"', repr(KEY)
        )
        for name, block in BLOCKS.items()
    }
    (folder / "blocks.json").write_text(json.dumps(blocks), "utf-8")
    environment = {**served.environment, "MIXCLI_BLOCKS": str(folder)}
    done = drive(environment, PYTHON, *sorted(DRIVEN.glob("*_*.py")))
    ends = folder / "ends.json"
    return Driven(
        done.returncode,
        done.stdout + done.stderr,
        json.loads(ends.read_text("utf-8")) if ends.exists() else {},
    )


def drive(
    environment: dict[str, str], python: str | Path, *args: str | Path
) -> "subprocess.CompletedProcess[str]":
    """Run the tests of files, without the settings and fixtures of this suite."""
    options = ["-q", "-c", "/dev/null", "--rootdir", str(DRIVEN), "--confcutdir", str(DRIVEN)]
    return subprocess.run(
        [python, "-m", "pytest", *options, "-p", "no:cacheprovider", "--tb=short", *args],
        env=environment,
        capture_output=True,
        text=True,
        timeout=600,
        check=False,
        stdin=subprocess.DEVNULL,
    )
