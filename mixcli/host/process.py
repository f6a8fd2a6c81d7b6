"""Start, find and stop hosts: one process per loaded model, found through its unix socket."""

import contextlib
import os
import signal
import time
from collections.abc import Callable, Generator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mixcli import paths
from mixcli.errors import MixcliError, ModelDied
from mixcli.host.child import Child
from mixcli.host.client import GONE, HostClient
from mixcli.host.protocol import READY, raise_error
from mixcli.host.spec import HostName, HostSpec, Order
from mixcli.locks import exclusive

START_TIMEOUT = 30.0  # seconds from the start of the process to its listening socket
STOP_TIMEOUT = 30.0  # answers that end, and what is written to disk
TAIL = 4096
KILLED = "killed by signal 9, by someone or by the system because memory ran out"

States = Generator[dict[str, Any], None, None]

NOBODY = (FileNotFoundError, ConnectionError)


@dataclass
class Host:
    """A loaded model that is held for as long as this object is open."""

    name: HostName
    client: HostClient
    notes: list[str]
    _states: States
    process: Child | None
    pid: int

    def leave(self) -> None:
        """Let go of the model; its keep_alive begins."""
        self._states.close()

    def cause_of_death(self) -> str:
        """Say in a few words why the process ended: the signal, or the last line of its log."""
        return _cause(self.name, self.process)


def connect(
    name: HostName,
    place: Callable[[], Order],
    keep_alive: float,
    report: Callable[[float, float, str], None],
) -> Host:
    """Find the host of a name or start it, wait until its model is loaded, and hold it.

    `place` is asked only when a host must be started. `keep_alive` is seconds after `leave`; `report` gets (done, total, stage)
    of the load. Raises what the host says of a failed load, ModelDied when its process ends.
    """
    with exclusive(name.lock):
        process = None
        states = _attach(name, keep_alive)
        if states is None:
            process = _start(HostSpec(name, place()))
            report(0.0, 1.0, f"loading {name.label}")
            states = _wait_for_socket(name, process, keep_alive)
    try:
        for state in states:
            if "error" in state:
                raise_error(state)
            if state["status"] == READY:
                return Host(name, HostClient(name.socket), state["notes"], states, process, state["pid"])
            report(state["progress"], 1.0, f"loading {name.label}")
    except GONE as error:
        raise ModelDied(_sentence(name, process, "loaded")) from error
    raise ModelDied(_sentence(name, process, "loaded"))


def hosts() -> list[dict[str, Any]]:
    """Give the state of every host that answers; sockets that nobody listens on are cleared away."""
    found = []
    for path in sorted(paths.runtime_dir().glob("*.sock")):
        try:
            found.append(HostClient(path).health())
        except NOBODY:
            with exclusive(path.with_suffix(".lock")):
                _clear_if_dead(path)
    return found


def stop(pid: int) -> None:
    """End a host: running answers get a few seconds; one that does not react is killed."""
    deadline = time.monotonic() + STOP_TIMEOUT
    os.kill(pid, signal.SIGTERM)
    while _alive(pid):
        if time.monotonic() > deadline:
            os.kill(pid, signal.SIGKILL)
        time.sleep(0.02)


def _alive(pid: int) -> bool:
    with contextlib.suppress(ChildProcessError):  # somebody else started it
        if os.waitpid(pid, os.WNOHANG)[0] == pid:
            return False
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


def _attach(name: HostName, keep_alive: float) -> States | None:
    try:
        return HostClient(name.socket).attach(keep_alive)
    except NOBODY:
        return None


def _start(spec: HostSpec) -> Child:
    _clear_if_dead(spec.name.socket)
    return Child.start("mixcli.host", spec.to_json(), spec.name.log)


def _wait_for_socket(name: HostName, process: Child, keep_alive: float) -> States:
    deadline = time.monotonic() + START_TIMEOUT
    while True:
        states = _attach(name, keep_alive)
        if states is not None:
            return states
        if process.poll() is not None:
            raise ModelDied(_sentence(name, process, "started"))
        if time.monotonic() > deadline:
            os.kill(process.pid, signal.SIGKILL)
            raise MixcliError(
                f"the model process did not answer within {START_TIMEOUT:.0f} seconds; its log is {name.log}"
            )
        time.sleep(0.01)


def _clear_if_dead(path: Path) -> None:
    """Remove a socket that nobody listens on; called under its lock."""
    try:
        HostClient(path).health()
    except NOBODY:
        path.unlink(missing_ok=True)


def _sentence(name: HostName, process: Child | None, doing: str) -> str:
    return (
        f"the model process ended while it {doing} {name.label} ({_cause(name, process)}); "
        f"run the same command again, and if it ends again look at {name.log}"
    )


def _cause(name: HostName, process: Child | None) -> str:
    code = process.wait(1) if process else None
    if code == -signal.SIGKILL:
        return KILLED
    if code is not None and code < 0:
        return f"killed by signal {-code}, {signal.strsignal(-code)}"
    with name.log.open("rb") as log:
        log.seek(max(0, log.seek(0, os.SEEK_END) - TAIL))
        lines = log.read().decode("utf-8", "replace").strip().splitlines()
    if lines:
        return f"its last words: {lines[-1]}"
    return "without a word" if code is None else f"exit code {code}"
