"""batch --deterministic: the same bytes with any window, beside another client, and after kills of the command and the host."""

import json
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from mixcli.client.process import hosts
from tests.conftest import Runner

pytestmark = pytest.mark.model

N = 4
COMMAND = [
    "--prompt",
    "Is this friendly? " * 30,
    "--choice",
    "yes,no,maybe",
    "--deterministic",
    "-m",
    "demo",
    "--ctx",
    "1024",
    "-q",
]


def records(folder: Path) -> Path:
    path = folder / "in.jsonl"
    lines = [
        {"text": f"Letter {i}: " + "thank you for the parcel, it came late, " * (1 + i % 3)} for i in range(N)
    ]
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    return path


def batch(mixcli: Runner, source: Path, out: Path, *more: str) -> bytes:
    done = mixcli("batch", str(source), "-o", str(out), *COMMAND, *more)
    assert done.returncode == 0, done.stderr
    return out.read_bytes()


@pytest.mark.slow
def test_windows_other_clients_and_kills_change_no_byte(
    mixcli: Runner, with_demo: Path, tmp_path: Path
) -> None:
    source = records(tmp_path)
    first = batch(mixcli, source, tmp_path / "1.jsonl", "--window", "1", "--keep-alive", "0")
    assert len(first.splitlines()) == N

    stop = threading.Event()

    def disturb() -> None:
        while not stop.is_set():
            mixcli("run", "-m", "demo", "--ctx", "1024", "--max-tokens", "20", "Tell me about the sea.")

    other = threading.Thread(target=disturb)
    other.start()
    try:
        beside = batch(mixcli, source, tmp_path / "2.jsonl", "--window", "8", "--keep-alive", "0")
    finally:
        stop.set()
        other.join()
    assert beside == first
    mixcli("stop", "--all", "-q")

    out = tmp_path / "3.jsonl"
    command = [sys.executable, "-m", "mixcli", "batch", str(source), "-o", str(out), *COMMAND]
    process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    journal = tmp_path / "3.jsonl.journal"
    deadline = time.monotonic() + 120
    while not (journal.exists() and len(journal.read_bytes().splitlines()) > 2):
        assert time.monotonic() < deadline
        assert process.poll() is None
        time.sleep(0.02)
    process.kill()
    process.wait()
    for host in hosts():
        os.kill(host.pid, signal.SIGKILL)
    assert batch(mixcli, source, out, "--window", "3") == first
