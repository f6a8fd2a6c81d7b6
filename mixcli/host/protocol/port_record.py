"""The record of a port that `mixcli serve` has open: its process, its address, and the key with which programs of this user may look at its state."""

import os
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from mixcli.host.protocol.notes import remove_note, running, write_note
from mixcli.system.process_state import born

SUFFIX = ".port"
LOOK = "/mixcli/port"  # path of a port's state
LOOK_HEADER = "X-Mixcli-Look"  # has the key of the record, without which there is no such path


class PortRecord(NamedTuple):
    """A port: `url` is its API's, `address` and `port` are where this machine connects, and `key` opens LOOK and nothing else."""

    pid: int
    born: str
    url: str
    address: str
    port: int
    key: str

    @classmethod
    def mine(cls, url: str, address: str, port: int, key: str) -> "PortRecord":
        """Describe a port of this process."""
        return cls(os.getpid(), born(os.getpid()), url, address, port, key)

    def file(self, folder: Path) -> Path:
        """Return the place of the record; a process may have several ports."""
        return folder / f"{self.pid}-{self.port}{SUFFIX}"

    def write(self, folder: Path) -> None:
        """Write the record; where it cannot be written, the port works without it."""
        write_note(self.file(folder), self._asdict())

    def remove(self, folder: Path) -> None:
        remove_note(self.file(folder))


def port_records(folder: Path) -> Iterator[PortRecord]:
    """Return the records of ports whose process runs; those of dead ones are cleared away."""
    return running(PortRecord, folder, SUFFIX)


__all__ = ["LOOK", "LOOK_HEADER", "PortRecord", "port_records"]
