"""Run a command and see what it takes: time, processor, memory, disk, and how much of the machine others had meanwhile."""

import contextlib
import ctypes
import os
import subprocess
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

_POLL_INTERVAL = 0.05  # seconds between looks at a process
_TICKS = os.sysconf("SC_CLK_TCK")
PR_SET_CHILD_SUBREAPER, PR_GET_CHILD_SUBREAPER = 36, 37  # of prctl(2)


@dataclass(frozen=True)
class Cost:
    """What a process took.

    `seconds` on the wall, `cpu_seconds` in all its threads. `bytes_resident` is VmHWM, the kernel's own count of the most pages that
    were in memory at a time, pages of mapped files with them. `bytes_private` is the largest RssAnon + RssShmem that was seen: what no file
    backs, so what the machine must really have free. `bytes_disk` is the most that lay on the disk at a time in the watched folder, beyond
    what was there before. `bytes_read` came from the disk and not from the page cache. `others` is the share of the
    machine's processors that other processes had.
    """

    seconds: float
    cpu_seconds: float
    bytes_resident: int
    bytes_private: int
    bytes_disk: int
    bytes_read: int
    others: float


def measure(command: Sequence[str], folder: Path, environment: Mapping[str, str] | None = None) -> Cost:
    """Run a command to its end and watch it and `folder`; what it prints is shown only if it fails."""
    os.sync()  # writes of earlier processes are not counted
    log = folder / "log"
    disk_before, busy_before, started = _bytes_in(folder), _busy_seconds(), time.monotonic()
    with log.open("wb") as output:
        process = subprocess.Popen(
            command,
            stdout=output,
            stderr=output,
            stdin=subprocess.DEVNULL,
            env={**os.environ, **(environment or {})},
        )
    resident = private = disk = 0
    while True:
        resident, private = map(max, (resident, private), _memory(process.pid))
        disk = max(disk, _bytes_in(folder))
        pid, status, usage = os.wait4(process.pid, os.WNOHANG)
        if pid:
            break
        time.sleep(_POLL_INTERVAL)
    seconds = time.monotonic() - started
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        raise SystemExit(
            f"{' '.join(command)}\nended with {process.returncode}:\n{log.read_text(errors='replace')[-3000:]}"
        )
    log.unlink()
    cpu = usage.ru_utime + usage.ru_stime
    others = max(0.0, _busy_seconds() - busy_before - cpu) / (seconds * (os.cpu_count() or 1))
    return Cost(
        seconds=seconds,
        cpu_seconds=cpu,
        bytes_resident=resident,
        bytes_private=private,
        bytes_disk=max(disk, _bytes_in(folder)) - disk_before,
        bytes_read=usage.ru_inblock * 512,
        others=others,
    )


def as_installed(**variables: str) -> dict[str, str]:
    """Return this environment with `variables`, for a program as its user has it: modules are compiled once, not at every start."""
    environment = {**os.environ, **variables}
    environment.pop("PYTHONDONTWRITEBYTECODE", None)
    return environment


@dataclass
class Share:
    """The share of the machine's processors that other processes had while a block ran; known when it has ended."""

    others: float = 0.0


@contextmanager
def watch() -> Iterator[Share]:
    """See what others have of the machine meanwhile.

    Programs that this process has started are not counted, whether they end in the block or not. What was started before the block and has
    outlived its own parent counts as another program, unless `keep_children` was entered before it.
    """
    share = Share()
    before, started = _busy_seconds() - own_seconds(), time.monotonic()
    with keep_children():
        yield share
    seconds = time.monotonic() - started
    foreign = _busy_seconds() - own_seconds() - before
    share.others = min(1.0, max(0.0, foreign) / (seconds * (os.cpu_count() or 1)))  # ticks are coarse


@contextmanager
def keep_children() -> Iterator[None]:
    """Become the parent of all that is started in a block and outlives its own parent, such as a model's host; Linux only.

    Enter it before whatever the measurement starts, a warm-up included. Blocks may be nested.
    """
    prctl = getattr(ctypes.CDLL(None), "prctl", None)
    if prctl is None:
        yield
        return
    before = ctypes.c_int()
    prctl(PR_GET_CHILD_SUBREAPER, ctypes.byref(before), 0, 0, 0)
    prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
    try:
        yield
    finally:
        prctl(PR_SET_CHILD_SUBREAPER, before.value, 0, 0, 0)


def own_seconds() -> float:
    """Processor seconds of this process and of all that it started, ended or not."""
    times: dict[int, float] = {}
    children: dict[int, list[int]] = {}
    for place in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError):  # it has just ended
            words = place.read_bytes().rpartition(b")")[2].split()
            pid = int(place.parent.name)
            children.setdefault(int(words[1]), []).append(pid)
            times[pid] = sum(map(int, words[11:15])) / _TICKS  # with those of its children that have ended
    seconds, waiting = sum(os.times()[:4]), list(children.get(os.getpid(), ()))
    while waiting:
        pid = waiting.pop()
        seconds += times[pid]
        waiting += children.get(pid, ())
    return seconds


def _memory(pid: int) -> tuple[int, int]:
    """VmHWM and RssAnon + RssShmem in bytes; zeros for a process that has just ended."""
    try:
        lines = Path(f"/proc/{pid}/status").read_text("ascii", "replace").splitlines()
    except OSError:
        return 0, 0
    fields = dict(line.split(":", 1) for line in lines if ":" in line)
    kib = {name: int(fields[name].split()[0]) for name in ("VmHWM", "RssAnon", "RssShmem") if name in fields}
    return kib.get("VmHWM", 0) * 1024, (kib.get("RssAnon", 0) + kib.get("RssShmem", 0)) * 1024


def _bytes_in(folder: Path) -> int:
    """What the files below a folder occupy on the disk."""
    total = 0
    for place, _, names in os.walk(folder):
        for name in names:
            try:
                total += os.lstat(Path(place, name)).st_blocks * 512
            except FileNotFoundError:  # renamed or removed meanwhile
                continue
    return total


def _busy_seconds() -> float:
    """Processor seconds that all processes of this machine have had, and what the hypervisor gave to others (steal)."""
    fields = Path("/proc/stat").read_text("ascii").split("\n", 1)[0].split()[1:]
    user, nice, system, _idle, _iowait, irq, softirq, steal = map(int, fields[:8])
    return (user + nice + system + irq + softirq + steal) / _TICKS
