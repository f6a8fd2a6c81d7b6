"""Find the file system that a folder is on, and what it cannot do."""

import os
from pathlib import Path
from typing import NamedTuple

PROC = Path("/proc")
# no unix socket can be made there: folders of a host that a virtual machine or a container shares, network and FAT file systems
WITHOUT_SOCKETS = {"9p", "drvfs", "virtiofs", "fuse.grpcfuse", "vfat", "exfat", "cifs", "smb3"}


class Mount(NamedTuple):
    """A mounted file system: where, its type as the kernel names it, and its source."""

    point: Path
    type: str
    source: str


def mount_of(path: Path) -> Mount | None:
    """Return what a path is on, which need not exist; None where the system does not tell."""
    try:
        lines = (PROC / "self/mountinfo").read_bytes().splitlines()
        place = path.resolve()
    except OSError:
        return None
    mounts = (_mount(line) for line in lines)
    around = [one for one in mounts if one is not None and place.is_relative_to(one.point)]
    # the longest; of those at one place the last, which covers the others
    return max(reversed(around), key=lambda one: len(one.point.parts), default=None)


def has_sockets(path: Path) -> bool:
    """Return whether a unix socket can be made in a folder, as far as its file system's type tells."""
    mount = mount_of(path)
    return mount is None or mount.type not in WITHOUT_SOCKETS


def _mount(line: bytes) -> Mount | None:
    """Read a line of mountinfo(5): fields, a hyphen behind optional ones, then type and source; a space in a path is \\040."""
    before, _, behind = line.partition(b" - ")
    fields, kind = before.split(), behind.split()
    if len(fields) < 5 or len(kind) < 2:
        return None
    point = fields[4].decode("unicode_escape").encode("latin-1")
    return Mount(Path(os.fsdecode(point)), os.fsdecode(kind[0]), os.fsdecode(kind[1]))


__all__ = ["Mount", "has_sockets", "mount_of"]
