"""The record files of hosts and ports: what identifies the process, even if it does not respond.

A process id is given to another process some time after its owner has ended, so a note holds what tells the two apart: when the process began.
"""

import contextlib
import os
import signal
import socket
import struct
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

from mixcli.host.protocol.notes import remove_note, running, runs, write_note
from mixcli.system.process_state import born

SYSTEM: str = sys.platform
SUFFIX = ".host"
# macOS: LOCAL_PEERPID of SOL_LOCAL
SOL_LOCAL, LOCAL_PEERPID = 0, 2


class HostRecord(NamedTuple):
    """A host's process, its socket and its model."""

    pid: int
    born: str
    socket: str
    label: str
    path: str

    @classmethod
    def mine(cls, socket: Path, label: str, path: Path) -> "HostRecord":
        """Describe this process."""
        return cls(os.getpid(), born(os.getpid()), os.fspath(socket), label, os.fspath(path))

    @property
    def file(self) -> Path:
        return Path(self.socket).parent / f"{self.pid}{SUFFIX}"

    @property
    def is_alive(self) -> bool:
        """Return whether this very process still runs; a zombie does not."""
        return runs(self.pid, self.born)

    def write(self) -> None:
        """Write the note; where it cannot be written, the host works without it."""
        write_note(self.file, self._asdict())

    def remove(self) -> None:
        remove_note(self.file)


def records(folder: Path) -> Iterator[HostRecord]:
    """Return the notes of hosts that run; those of dead ones are cleared away."""
    return running(HostRecord, folder, SUFFIX)


def process_at(path: Path) -> int:
    """Return the process that listens on a socket, by its note or else by the system; 0 where neither tells."""
    for record in records(path.parent):
        if record.socket == os.fspath(path):
            return record.pid
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as connection:
        connection.settimeout(1.0)
        try:
            connection.connect(os.fspath(path))
        except OSError:
            return 0
        return listener_pid(connection)


def listener_pid(connection: socket.socket) -> int:
    """Return the process that listens at the other end of a unix socket, whether it answers or not; 0 where the system does not tell."""
    try:
        if SYSTEM == "linux":
            size = struct.calcsize("3i")
            return int(
                struct.unpack("3i", connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, size))[0]
            )
        if SYSTEM == "darwin":
            return connection.getsockopt(SOL_LOCAL, LOCAL_PEERPID)
    except (OSError, struct.error):
        pass
    return 0


def end(pid: int, born_at: str, seconds: float, kill_after: float) -> bool:
    """Ask a process to end, also one that is stopped; after `kill_after` seconds kill it. Return whether it is gone after `seconds` more."""

    def gone() -> bool:
        return born(pid) != born_at

    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, signal.SIGTERM)
        os.kill(pid, signal.SIGCONT)
        if not until(gone, kill_after) and not gone():
            os.kill(pid, signal.SIGKILL)
    return until(gone, seconds)


def until(condition: Callable[[], bool], seconds: float) -> bool:
    """Wait until a condition holds, at most some seconds; False when it does not hold by then."""
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.02)
    return True
