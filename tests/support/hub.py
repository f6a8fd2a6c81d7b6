"""A stand-in hub for every test that wants one, and mixcli's pull against it."""

import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.conftest import mixcli_process
from tests.support import hub_server
from tests.support.hub_server import StandIn

Done = "subprocess.CompletedProcess[str]"


@pytest.fixture
def hub() -> Iterator[StandIn]:
    with hub_server.running() as running:
        yield running


@pytest.fixture
def online(hub: StandIn, home: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, str]:
    """The environment in which the stand-in is the Hub."""
    settings = {
        "HF_ENDPOINT": hub.url,
        "HF_HUB_OFFLINE": "0",
        "HF_HUB_DISABLE_XET": "1",
        "HF_HUB_DISABLE_TELEMETRY": "1",
        "HF_HUB_DISABLE_UPDATE_CHECK": "1",
        "HF_HUB_DOWNLOAD_TIMEOUT": "20",
        "HF_HUB_ETAG_TIMEOUT": "20",
        "MIXCLI_PATIENCE": "30",
        "NO_PROXY": "127.0.0.1",
    }
    for name, value in settings.items():
        monkeypatch.setenv(name, value)
    for name in ("HF_TOKEN", "HUGGING_FACE_HUB_TOKEN"):
        monkeypatch.delenv(name, raising=False)
    return settings


@pytest.fixture
def pull(home: Path, online: dict[str, str]) -> Callable[..., Done]:
    """Run `mixcli pull ARGS` against the stand-in."""

    def run(*args: str, **env: str) -> Done:
        return mixcli_process(home, ["pull", *args], None, 120, **{**online, **env})

    return run


@pytest.fixture
def start_pull(home: Path, online: dict[str, str]) -> Iterator[Callable[..., "subprocess.Popen[str]"]]:
    """Start `mixcli pull ARGS` and go on."""
    started = []

    def start(*args: str, **env: str) -> "subprocess.Popen[str]":
        process = subprocess.Popen(
            [sys.executable, "-m", "mixcli", "pull", *args],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env={**os.environ, **env},
        )
        started.append(process)
        return process

    yield start
    for process in started:
        if process.poll() is None:
            process.kill()
        process.communicate()


def in_python(code: str, *args: str) -> str:
    """Run code with the real huggingface_hub in a process of its own; gives what it printed."""
    return subprocess.check_output([sys.executable, "-c", code, *args], text=True).strip()
