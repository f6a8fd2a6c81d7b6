"""Nothing leaves the machine: every connection and every look-up of a name is recorded while models are asked and served."""

import json
import os
import signal
import subprocess
import sys
import urllib.request
from pathlib import Path

import pytest

from tests.conftest import Runner

# each Python process that is started beside this file notes where it connects
AUDIT = """
import os, sys

def note(event, args):
    if event in ("socket.connect", "socket.sendto"):
        address = args[1]
    elif event in ("socket.getaddrinfo", "socket.gethostbyname"):
        address = args[0]
    else:
        return
    with open(os.path.join(os.path.dirname(__file__), "audit.txt"), "a") as file:
        file.write(f"{event} {address!r}\\n")

sys.addaudithook(note)
"""
LOCAL = ("'127.", "b'127.", "('127.", "('::1'", "'::1'", "'localhost'", "'/", "b'/", "None")


@pytest.mark.slow
def test_offline_opens_no_connection_outward(mixcli: Runner, with_demo: Path, tmp_path: Path) -> None:
    (tmp_path / "sitecustomize.py").write_text(AUDIT)
    record = tmp_path / "audit.txt"
    audited = {"PYTHONPATH": str(tmp_path)}
    environment = {**os.environ, **audited, "HF_HUB_OFFLINE": "1", "MIXCLI_API_KEY": "0123456789abcdef"}
    command = [
        sys.executable,
        "-m",
        "mixcli",
        "serve",
        "demo",
        "--ctx",
        "256",
        "--host",
        "0.0.0.0",
        "--port",
        "0",
    ]
    process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True, env=environment)
    try:
        assert process.stderr is not None
        said = next(line for line in process.stderr if " at http://" in line)
        url = said.split()[-1]
        for path, body in (
            ("/chat/completions", {"messages": [{"role": "user", "content": "Hi"}], "max_tokens": 2}),
            ("/completions", {"prompt": "Hi", "max_tokens": 2}),
        ):
            headers = {"Authorization": "Bearer 0123456789abcdef", "Content-Type": "application/json"}
            request = urllib.request.Request(url + path, json.dumps(body).encode(), headers)
            assert urllib.request.urlopen(request, timeout=60).status == 200
        done = mixcli("run", "--offline", "-m", "demo", "--ctx", "256", "--max-tokens", "2", "Hi", **audited)
        assert done.returncode == 0, done.stderr
    finally:
        process.send_signal(signal.SIGTERM)
        process.communicate(timeout=60)
    lines = record.read_text().splitlines()
    assert any(".sock" in line for line in lines), "the host was connected to"
    outward = [line for line in lines if not line.split(" ", 1)[1].startswith(LOCAL)]
    assert outward in ([], ["socket.getaddrinfo '0.0.0.0'"] * len(outward))
