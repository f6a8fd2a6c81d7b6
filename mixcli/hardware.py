"""This machine in numbers: memory that is really free to us, and cores that really compute."""

import os
from pathlib import Path

from profiles.planner import Machine

CGROUP = Path("/sys/fs/cgroup")


def this_machine() -> Machine:
    """Look at memory and cores now."""
    return Machine(bytes_free=memory_free(), n_cores=physical_cores())


def memory_free() -> int:
    """Give the bytes that a new process can have: the kernel's estimate, within the limit of our control group."""
    free = _meminfo("MemAvailable") or os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    limit, used = _number(CGROUP / "memory.max"), _number(CGROUP / "memory.current")
    if limit is not None and used is not None:
        free = min(free, max(0, limit - used + _cgroup_file_cache()))
    return free


def physical_cores() -> int:
    """Give the cores that we may use, hyper-threads counted once: a second thread on a core adds nothing to matrix products."""
    usable = os.sched_getaffinity(0) if hasattr(os, "sched_getaffinity") else set(range(os.cpu_count() or 1))
    siblings = {
        _text(Path(f"/sys/devices/system/cpu/cpu{cpu}/topology/thread_siblings_list")) or str(cpu)
        for cpu in usable
    }
    return min(len(siblings), _cpu_quota() or len(siblings))


def _cpu_quota() -> int | None:
    quota, _, period = (_text(CGROUP / "cpu.max") or "max").partition(" ")
    return max(1, int(quota) // int(period)) if quota.isdigit() and period.isdigit() else None


def _cgroup_file_cache() -> int:
    stat = dict(line.split() for line in (_text(CGROUP / "memory.stat") or "").splitlines())
    return int(stat.get("inactive_file", 0)) + int(stat.get("active_file", 0))


def _meminfo(key: str) -> int | None:
    for line in (_text(Path("/proc/meminfo")) or "").splitlines():
        if line.startswith(f"{key}:"):
            return int(line.split()[1]) * 1024
    return None


def _number(path: Path) -> int | None:
    text = _text(path)
    return int(text) if text and text.isdigit() else None


def _text(path: Path) -> str | None:
    try:
        return path.read_text().strip()
    except OSError:
        return None
