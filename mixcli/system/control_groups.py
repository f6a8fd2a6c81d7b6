"""Read the limits of the control groups that this process is in: memory and processors, in version 1 and 2.

A container sees its own group as the root; a systemd service or slice is a group below it, and every group around it limits it too.
"""

from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from typing import NamedTuple

NO_LIMIT = 1 << 60  # bytes; version 1 writes nearly 2^63 for none


class MemoryLimit(NamedTuple):
    """The limit of one group, and what a process in it can still have: bytes; its page cache counts as free."""

    n_bytes: int
    free: int


class _Files(NamedTuple):
    """The names of a version's files, and those of the page cache's lines in memory.stat.

    Beyond "memory.high" a process is not ended but slowed down until it hardly moves.
    """

    limits: tuple[str, ...]
    used: str
    cache: tuple[str, str]


_MEMORY = {
    "cgroup2": _Files(("memory.max", "memory.high"), "memory.current", ("inactive_file", "active_file")),
    "cgroup": _Files(
        ("memory.limit_in_bytes",), "memory.usage_in_bytes", ("total_inactive_file", "total_active_file")
    ),
}


def memory_limits(proc: Path) -> list[MemoryLimit]:
    """Return the limits of memory; `proc` is the folder that Linux describes its processes in."""
    found = []
    for version, folder in _groups(proc, "memory"):
        names = _MEMORY[version]
        stated = (_number(folder / name) for name in names.limits)
        limit, used = (
            min((one for one in stated if one is not None), default=NO_LIMIT),
            _number(folder / names.used),
        )
        if used is not None and limit < NO_LIMIT:
            cache = sum(_stat(folder).get(name, 0) for name in names.cache)
            found.append(MemoryLimit(limit, max(0, limit - used + cache)))
    return found


def cpu_quota(proc: Path) -> int | None:
    """Return how many processors' time this process may take, 1 at least; None without a limit."""
    quotas = []
    for version, folder in _groups(proc, "cpu"):
        if version == "cgroup2":
            quota, _, period = (_text(folder / "cpu.max") or "max").partition(" ")
        else:
            quota, period = (_text(folder / f"cpu.cfs_{name}_us") or "" for name in ("quota", "period"))
        if quota.isdigit() and period.isdigit() and int(period):
            quotas.append(max(1, int(quota) // int(period)))
    return min(quotas, default=None)


def _groups(proc: Path, controller: str) -> Iterator[tuple[str, Path]]:
    """Yield the folders of our groups with a controller, each with its version, the innermost first."""
    paths = {}
    for line in (_text(proc / "self/cgroup") or "").splitlines():
        number, _, rest = line.partition(":")
        controllers, _, path = rest.partition(":")
        if number == "0" or controller in controllers.split(","):
            paths["cgroup2" if number == "0" else "cgroup"] = path
    for line in (_text(proc / "self/mountinfo") or "").splitlines():
        before, _, behind = line.partition(" - ")
        fields, kind = before.split(), behind.split()
        if len(fields) < 5 or len(kind) < 3 or kind[0] not in paths:
            continue
        if kind[0] == "cgroup2" or controller in kind[2].split(","):
            yield from ((kind[0], folder) for folder in _inward(fields[3], fields[4], paths[kind[0]]))


def _inward(root: str, point: str, path: str) -> Iterator[Path]:
    """Yield the folder of a group and those around it, where the group `root` is mounted at `point`."""
    group = PurePosixPath(path)
    below = group.relative_to(root) if group.is_relative_to(root) and ".." not in group.parts else None
    mounted = Path(point.encode("latin-1", "replace").decode("unicode_escape"))  # a space is \040
    folder = mounted / below if below is not None else mounted
    yield folder
    while folder != mounted:
        folder = folder.parent
        yield folder


def _stat(folder: Path) -> dict[str, int]:
    lines = (line.split() for line in (_text(folder / "memory.stat") or "").splitlines())
    return {line[0]: int(line[1]) for line in lines if len(line) == 2 and line[1].isdigit()}


def _number(path: Path) -> int | None:
    text = _text(path)
    return int(text) if text and text.isdigit() else None


def _text(path: Path) -> str | None:
    try:
        return path.read_text("utf-8", "surrogateescape").strip()
    except OSError:
        return None


__all__ = ["MemoryLimit", "cpu_quota", "memory_limits"]
