"""The two servers while a block runs: mixcli's host and llama-server, each on a unix socket, loaded and ready."""

import contextlib
import http.client
import os
import subprocess
import time
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

from bench.engine.client import Connection
from bench.engine.subject import Setting, peer_options
from mixcli.client import process
from mixcli.host.protocol.host_name import HostName
from mixcli.host.protocol.host_spec import LoadPlan
from profiles.placement import Placement

_START = 120.0  # seconds that a server may take to load


@contextmanager
def llama_server(
    setting: Setting, n_slots: int, n_ctx_slot: int, options: Sequence[str] = ()
) -> Iterator[Path]:
    """Run llama-server with `n_slots` slots of `n_ctx_slot` tokens; give its socket."""
    with TemporaryDirectory(prefix="bench-") as temporary:
        socket = Path(temporary) / "llama.sock"
        slots = ["-np", str(n_slots), "-c", str(n_slots * n_ctx_slot)]
        own = ["--host", str(socket), "--no-ui", "--log-disable"]
        command = [str(setting.peers.server), *peer_options(setting.subject), *slots, *own, *options]
        log = Path(temporary) / "log"
        with log.open("wb") as output:
            server = subprocess.Popen(command, stdout=output, stderr=output, stdin=subprocess.DEVNULL)
        try:
            _wait(socket, server, log)
            yield socket
        finally:
            server.terminate()
            server.wait()


def _wait(socket: Path, server: "subprocess.Popen[bytes]", log: Path) -> None:
    deadline = time.monotonic() + _START
    while server.poll() is None and time.monotonic() < deadline:
        with (
            contextlib.suppress(OSError, http.client.HTTPException),
            closing(Connection(socket)) as connection,
        ):
            connection.request("GET", "/health")
            if connection.getresponse().status == 200:
                return
        time.sleep(0.05)
    server.kill()
    raise SystemExit(f"llama-server does not answer: {log.read_text(errors='replace')[-2000:]}")


@contextmanager
def mixcli_host(setting: Setting, placement: Placement, home: Path) -> Iterator[Path]:
    """Run mixcli's host with this placement and its files in `home`; give its socket."""
    with at_home(home):
        name = HostName(setting.subject.path.absolute(), setting.subject.name, placement.to_json())
        with process.start_lock(name):
            loading = process.start(name, LoadPlan(placement), 0.0)
        host = loading.wait(lambda *_: None)
        try:
            yield name.socket
        finally:
            process.stop(host.pid)
            host.release()


@contextmanager
def at_home(home: Path) -> Iterator[None]:
    """Have mixcli's own files in `home` while the block runs."""
    before = os.environ.get("MIXCLI_HOME")
    os.environ["MIXCLI_HOME"] = str(home)
    try:
        yield
    finally:
        if before is None:
            del os.environ["MIXCLI_HOME"]
        else:
            os.environ["MIXCLI_HOME"] = before
