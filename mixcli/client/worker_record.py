"""The record of a `mixcli worker` of this user: its process and its address, for `mixcli ps`. A worker itself answers one client at a time."""

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from mixcli.errors import MixcliError
from mixcli.host.protocol.notes import remove_note, running, write_note
from mixcli.system import paths
from mixcli.system.process_state import born
from mixcli.system.tcp_connections import user_of
from mixcli.system.worker_address import parse_worker

SUFFIX = ".worker"
FREE, IN_USE = "free", "in use"


class WorkerRecord(NamedTuple):
    """A worker: `listen` is HOST:PORT as it was given, `address` the IPv4 address behind it."""

    pid: int
    born: str
    listen: str
    address: str

    @property
    def client(self) -> str:
        """Return who uses the worker now: a process of this machine, or an address; empty where it is free, or the system does not tell."""
        return user_of((self.address, parse_worker(self.listen)[1]))

    def to_json(self) -> dict[str, object]:
        """Return the JSON object, with the fields of a loaded model that a worker has too."""
        client = self.client
        return {
            "worker": self.listen,
            "pid": self.pid,
            "status": IN_USE if client else FREE,
            "client": client or None,
        }


@contextlib.contextmanager
def recorded(listen: str, address: str) -> Iterator[None]:
    """Keep a record of this process while the block runs; where it cannot be written, the worker works without it."""
    try:
        folder = paths.runtime_dir()
    except (OSError, MixcliError):  # no folder can be written, and the worker needs none
        yield
        return
    record = WorkerRecord(os.getpid(), born(os.getpid()), listen, address)
    write_note(_file(folder, record.pid), record._asdict())
    try:
        yield
    finally:
        remove_note(_file(folder, record.pid))


def worker_records() -> Iterator[WorkerRecord]:
    """Return the workers of this user that run; the records of dead ones are cleared away."""
    return running(WorkerRecord, paths.runtime_dir(), SUFFIX)


def _file(folder: Path, pid: int) -> Path:
    return folder / f"{pid}{SUFFIX}"


__all__ = ["FREE", "IN_USE", "WorkerRecord", "recorded", "worker_records"]
