"""Who is at the other end of a TCP connection, by Linux's own tables: processes of this machine, or an address; unknown on other systems."""

import contextlib
import os
import socket
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from mixcli.system.text import clean

TABLE = Path("/proc/net/tcp")  # IPv4, as llama.cpp's RPC has it
ESTABLISHED = "01"
EVERY = "0.0.0.0"  # the address of a server at every one of its machine's
LONGEST = 100  # characters of a command that are shown

Place = tuple[str, int]  # an IPv4 address and a port


class Connection(NamedTuple):
    """One end of a connection that is on this machine; `inode` is 0 while no program has accepted it."""

    own: Place
    peer: Place
    inode: int


def connections() -> Iterator[Connection]:
    """Yield the ends of open IPv4 connections that are on this machine."""
    with contextlib.suppress(OSError, ValueError, IndexError):
        for line in TABLE.read_text("ascii").splitlines()[1:]:
            words = line.split()
            if words[3] == ESTABLISHED:
                yield Connection(_place(words[1]), _place(words[2]), int(words[9]))


def user_of(server: Place, but: Place | None = None) -> str:
    """Return in words who uses a server, `but` the end of one connection: a process of this machine, else an address; empty where nothing is known.

    A server that takes one connection at a time leaves the others in its queue: only what it has accepted counts, where that is seen.
    """
    found = list(connections())
    here = [one for one in found if _is_at(one.own, server)]  # the server's ends, where it is on this machine
    accepted = [one.peer for one in here if one.inode and one.peer != but]
    asking = [
        one
        for one in found
        if _is_at(one.peer, server) and one.own != but and (one.own in accepted or not here)
    ]
    for one in asking:
        if pid := _process_of(one.inode):
            return f"process {pid} ({command_of(pid)})"
    return accepted[0][0] if accepted else ""


def command_of(pid: int) -> str:
    """Return the command line of a process, shortened; empty where that is not known."""
    with contextlib.suppress(OSError):
        words = Path(f"/proc/{pid}/cmdline").read_bytes().decode("utf-8", "replace").split("\0")
        said = clean(" ".join(filter(None, words)))
        return said if len(said) <= LONGEST else f"{said[:LONGEST]}…"
    return ""


def _process_of(inode: int) -> int:
    """Return the process that has a socket; 0 where it is another user's, or this one."""
    if not inode:
        return 0
    name = f"socket:[{inode}]"
    for folder in Path("/proc").iterdir():
        if not folder.name.isdigit() or int(folder.name) == os.getpid():
            continue
        with contextlib.suppress(OSError):
            if any(_leads_to(entry, name) for entry in (folder / "fd").iterdir()):
                return int(folder.name)
    return 0


def _leads_to(entry: Path, name: str) -> bool:
    with contextlib.suppress(OSError):  # closed meanwhile
        return os.readlink(entry) == name  # noqa: PTH115  # not a path
    return False


def _is_at(end: Place, server: Place) -> bool:
    """Return whether an end is the server's: with its port, and its address unless that is every address."""
    return end[1] == server[1] and server[0] in (end[0], EVERY)


def _place(text: str) -> Place:
    address, _, port = text.partition(":")
    return socket.inet_ntoa(struct.pack("=I", int(address, 16))), int(port, 16)


__all__ = ["Connection", "command_of", "connections", "user_of"]
