"""Start, find and stop hosts: one process per loaded model, found through its unix socket."""

import contextlib
import os
import signal
import time
from collections.abc import Callable, Generator, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from mixcli.client.host_watch import NOT_LISTENING, REPLY_TIMEOUT, HostWatch, clear_if_dead
from mixcli.client.openai import GONE, HostClient, unresponsive
from mixcli.client.unix_http import BrokenResponse
from mixcli.errors import Busy, MixcliError, ModelDied
from mixcli.host.protocol.errors import raise_error
from mixcli.host.protocol.host_name import HostName
from mixcli.host.protocol.host_record import HostRecord, end, records, until
from mixcli.host.protocol.paths import READY
from mixcli.host.protocol.status import LoadStatus
from mixcli.system.console import console
from mixcli.system.locks import exclusive
from mixcli.system.process_state import born, killed_by

if TYPE_CHECKING:
    from mixcli.client.spawn import Child
    from mixcli.host.protocol.health import HostHealth
    from mixcli.host.protocol.host_spec import LoadPlan

START_TIMEOUT = 30.0  # seconds from the start of the process to its listening socket
NOTICE_TIMEOUT = 0.5  # seconds for a host to see that we have left
LEAVE_TIMEOUT = 5.0  # seconds for an unused model to unload
FORMER_TIMEOUT = 10.0  # seconds for one that is shutting down to give its memory back
STOP_TIMEOUT = 30.0  # answers that end, and what is written to disk
KILL_TIMEOUT = 10.0  # seconds for the system to take a killed process away
LOCK_TIMEOUT = 120.0  # seconds for another process to look at a file, plan, and start a host
TAIL = 4096
KNOWN = "mixcli: "  # begins the last line of a host that knows why it ends
ASSERTION = "GGML_ASSERT("  # in the last words of ggml, behind the path at which it was built
KILLED = "killed by signal 9, by a user or because memory ran out"


class States(Iterator[LoadStatus]):
    """The states of a host that a client is attached to; the first has come. `close` leaves."""

    def __init__(self, first: LoadStatus, rest: Generator[LoadStatus, None, None]) -> None:
        self._first: LoadStatus | None = first
        self._rest = rest

    def __next__(self) -> LoadStatus:
        first, self._first = self._first, None
        return first or next(self._rest)

    def close(self) -> None:
        """Leave the host."""
        self._rest.close()


@dataclass
class Host:
    """A loaded model that is held for as long as this object is open."""

    name: HostName
    client: HostClient
    notes: tuple[str, ...]
    _states: States
    process: "Child | None"
    pid: int
    keep_alive: float
    speculates: bool = True

    @property
    def socket(self) -> Path:
        """Return where it listens."""
        return self.name.socket

    @property
    def why_no_drafts(self) -> str:
        """Return why the model follows no drafts of prompt lookup; nothing where it does."""
        if self.speculates:
            return ""
        return "speculate is off: on a CPU verifying a guess takes nearly as long as writing a token"

    def release(self) -> None:
        """Release the model; its keep_alive starts. If it is 0, the memory is free on return, unless another client uses the model."""
        self._states.close()
        if self.keep_alive == 0 and until(lambda: not self._is_in_use(), NOTICE_TIMEOUT):
            until(lambda: not born(self.pid), LEAVE_TIMEOUT)

    def is_shared(self) -> bool:
        """Return whether other clients use the model too, when all requests of this one have ended."""
        return not until(lambda: not self._is_in_use(1), NOTICE_TIMEOUT)

    def _is_in_use(self, own: int = 0) -> bool:
        """Return whether there are more clients and requests than our `own`."""
        try:
            return (self.client.health().busy or 0) > own
        except (OSError, ValueError):
            return False  # it is shutting down

    def kill(self) -> None:
        """End the process at once, also one that is stopped or hangs; MixcliError where the system does not let it go."""
        at = born(self.pid)
        if at and not end(self.pid, at, KILL_TIMEOUT, 0.0):
            raise not_ended(self.pid)

    def known_cause(self) -> str:
        """Return why the process ended, where it knew that itself; else nothing."""
        return _known_cause(self.name)

    def cause_of_death(self) -> str:
        """Return in a few words why the process ended: the signal, or the last line of its log."""
        return _cause(self.name, self.process)


@dataclass
class Loading:
    """A host whose model is being loaded or is there already; its client is attached."""

    name: HostName
    plan: "LoadPlan | None"  # of a host that was started for this client; None for one that was running
    _states: States
    _process: "Child | None"
    _keep_alive: float

    def cancel(self) -> None:
        """End the process that was started for this client; another thread that waits for it gets an error."""
        if self._process is not None:
            stop(self._process.pid)

    def wait(self, report: Callable[[float, float, str], None]) -> Host:
        """Wait until the model is loaded, and hold it; `report` gets (done, total, stage) of the load.

        Raises what the host says of a failed load, ModelDied when its process ends, Unresponsive when it gives no sign of life.
        """
        stage = f"loading {self.name.label}"
        if self._process is not None:
            report(0.0, 1.0, stage)
        try:
            for state in self._states:
                if state.error:
                    raise_error(state.error)
                if state.status == READY:
                    client = HostClient(self.name.socket)
                    return Host(
                        self.name,
                        client,
                        state.notes,
                        self._states,
                        self._process,
                        state.pid,
                        self._keep_alive,
                        state.speculates,
                    )
                report(state.progress, 1.0, stage)
        except TimeoutError as error:
            raise unresponsive(self.name.socket) from error
        except GONE as error:
            raise ModelDied(_sentence(self.name, self._process, "loading")) from error
        raise ModelDied(_sentence(self.name, self._process, "loading"))


@contextlib.contextmanager
def start_lock(name: HostName) -> Generator[None]:
    """Hold the lock under which a host is attached to or started, so that two starts at the same moment give one host."""
    with exclusive(name.lock, seconds=LOCK_TIMEOUT, what=f"starting the model process of {name.label}"):
        yield


def attach(name: HostName, keep_alive: float) -> Loading | None:
    """Attach to the host of a name; None where none runs. `keep_alive` is seconds after `release`.

    One that is shutting down has ended by then: a plan for another one counts its memory as taken.
    """
    states = _attach(name, keep_alive)
    if states is not None:
        return Loading(name, None, states, None, keep_alive)
    for record in [one for one in records(name.socket.parent) if one.socket == os.fspath(name.socket)]:
        _await_end(record)
    return None


def start(name: HostName, plan: "LoadPlan", keep_alive: float) -> Loading:
    """Start a host, wait until it listens, and attach to it; called under its `start_lock`."""
    from mixcli.client.spawn import Child
    from mixcli.host.protocol.host_spec import HostSpec

    clear_if_dead(name.socket)
    process = Child.start("mixcli.host", HostSpec(name, plan).to_json(), name.log)
    return Loading(name, plan, _wait_for_socket(name, process, keep_alive), process, keep_alive)


def hosts() -> "list[HostHealth]":
    """Return the state of every host, all requested at once and for two seconds, as HostWatch describes it."""
    watch = HostWatch()
    watch.send()
    return watch.states(REPLY_TIMEOUT)


def stop(pid: int) -> None:
    """End a host, also one that is stopped or does not respond; running answers get a few seconds, and one that does not react is killed.

    Raises MixcliError when the system does not let it go.
    """
    at = born(pid)
    if at and not end(pid, at, KILL_TIMEOUT, STOP_TIMEOUT):
        raise not_ended(pid)


def not_ended(pid: int) -> MixcliError:
    """Return the error of a process that SIGKILL did not end."""
    return MixcliError(f"the process {pid} did not end after SIGKILL; check it with `ps -p {pid}`")


def _await_end(former: HostRecord) -> None:
    """Wait until a host without a socket has ended, with a note where that takes long."""

    def has_ended() -> bool:
        return not former.is_alive

    if not until(has_ended, NOTICE_TIMEOUT):
        console.note(f"waiting for the process {former.pid} to unload {former.label}")
        until(has_ended, FORMER_TIMEOUT)


def _attach(name: HostName, keep_alive: float) -> States | None:
    """Attach to a host; None if there is none or it is shutting down, which it may be when it has let us in. Raises Unresponsive."""
    try:
        states = HostClient(name.socket).attach(keep_alive)
        first = next(states, None)
    except (*NOT_LISTENING, Busy):
        return None
    except (TimeoutError, BrokenResponse) as error:
        raise unresponsive(name.socket) from error
    return None if first is None else States(first, states)


def _wait_for_socket(name: HostName, process: "Child", keep_alive: float) -> States:
    deadline = time.monotonic() + START_TIMEOUT
    while True:
        states = _attach(name, keep_alive)
        if states is not None:
            return states
        if process.poll() is not None:
            raise ModelDied(_sentence(name, process, "starting"))
        if time.monotonic() > deadline:
            os.kill(process.pid, signal.SIGKILL)
            raise MixcliError(
                f"the model process did not respond within {START_TIMEOUT:.0f} seconds; see its log {name.log}"
            )
        time.sleep(0.01)


def _sentence(name: HostName, process: "Child | None", doing: str) -> str:
    return (
        f"the model process crashed while {doing} {name.label} ({_cause(name, process)}); "
        f"rerun the command; log: {name.log}"
    )


def _cause(name: HostName, process: "Child | None") -> str:
    code = process.wait(1) if process else None
    if code is None and process is not None and born(process.pid):
        return f"process {process.pid} closed the connection but is still running"
    if code == -signal.SIGKILL:
        return KILLED
    lines = _last_lines(name.log)
    if code == -signal.SIGABRT and (said := next((one for one in reversed(lines) if ASSERTION in one), "")):
        return f"llama.cpp stopped at {said[said.index(ASSERTION) :]}"
    if code is not None and code < 0:
        return killed_by(-code)
    if lines:
        return _known_cause(name) or f"last log line: {lines[-1]}"
    return "no log output" if code is None else f"exit code {code}"


def _known_cause(name: HostName) -> str:
    """Return why a host ended, where it knew that itself, such as a worker that it lost; else nothing."""
    last = (_last_lines(name.log) or [""])[-1]
    return last.removeprefix(KNOWN) if last.startswith(KNOWN) else ""


def _last_lines(log: Path) -> list[str]:
    try:
        with log.open("rb") as file:
            file.seek(max(0, file.seek(0, os.SEEK_END) - TAIL))
            return file.read().decode("utf-8", "replace").strip().splitlines()
    except OSError:  # the log, or the model's file, is gone
        return []
