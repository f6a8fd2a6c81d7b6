"""Query other processes: whether they run, since when, and their CPU time.

`/proc` on Linux, `ps` elsewhere.
"""

import os
import signal
import sys
from pathlib import Path
from typing import NamedTuple

SYSTEM: str = sys.platform
STOPPED = "T"  # the state of a process after SIGSTOP
PS = 5.0  # seconds for ps to answer, where there is no /proc
SILENCE = 30.0  # seconds without a sign of life from a host, which sends one every BEAT seconds (mixcli/host/api/events.py)
CROWDED = 3.0  # times as long at most, where other programs take the cores


class _Fields(NamedTuple):
    """State, beginning and processor time of a process, in the system's own words."""

    state: str
    born: str
    computed: str


def killed_by(number: int) -> str:
    """Return in a few words what a signal that ended a process means."""
    if number == signal.SIGBUS:
        return f"a file in use became shorter or could not be read (signal {number}); check the model with `mixcli verify`"
    return f"killed by signal {number}, {signal.strsignal(number)}"


def silence() -> float:
    """Return the seconds without a sign of life after which a host hangs: more where more programs compute than there are cores."""
    try:
        load = os.getloadavg()[0] / (os.cpu_count() or 1)
    except OSError:
        load = 1.0
    return SILENCE * min(CROWDED, max(1.0, load))


def state(pid: int) -> str:
    """Return the state of a process as one letter ("R", "S", "T" stopped, "D" in the kernel); "" when it has ended, also as a zombie."""
    fields = _fields(pid)
    return fields.state[:1] if fields else ""


def born(pid: int) -> str:
    """Return when a process began, in the system's own words; "" when it has ended, also as a zombie."""
    fields = _fields(pid)
    return fields.born if fields else ""


def computed(pid: int) -> str:
    """Return the processor time that a process has used, in the system's own words, to compare; "" when it has ended."""
    fields = _fields(pid)
    return fields.computed if fields else ""


def resident(pid: int) -> int | None:
    """Return the bytes of host memory that a process has, pages of mapped files with them; None where the system does not tell."""
    try:
        if SYSTEM == "linux":
            return int(Path(f"/proc/{pid}/statm").read_text("ascii").split()[1]) * os.sysconf("SC_PAGE_SIZE")
        return int(_ps("rss=", pid)) * 1024
    except (OSError, ValueError, IndexError):
        return None


def lock_holder(handle: int) -> int:
    """Return the process that has the flock on an open file, by Linux's own list; 0 where that does not tell."""
    try:
        status, lines = os.fstat(handle), Path("/proc/locks").read_text("ascii").splitlines()
    except (OSError, ValueError):
        return 0
    file = f"{os.major(status.st_dev):02x}:{os.minor(status.st_dev):02x}:{status.st_ino}"
    holders = [int(words[4]) for line in lines if (words := line.split())[1] == "FLOCK" and words[5] == file]
    return max(holders[0], 0) if holders else 0


def _fields(pid: int) -> _Fields | None:
    """Return what is known of a process; None for one that has ended, also as a zombie."""
    fields = _from_proc(pid) if SYSTEM == "linux" else _from_ps(pid)
    return None if fields is None or fields.state[:1] in "ZX" else fields


def _from_proc(pid: int) -> _Fields | None:
    try:
        raw = Path(f"/proc/{pid}/stat").read_bytes()
    except OSError:
        return None
    words = raw.rpartition(b")")[2].decode("ascii").split()  # the name before may hold anything
    return _Fields(words[0], words[19], f"{words[11]} {words[12]}")


def _from_ps(pid: int) -> _Fields | None:
    said = _ps("stat=,time=,lstart=", pid).split(maxsplit=2)
    return _Fields(said[0], said[2].strip(), said[1]) if len(said) == 3 else None


def _ps(columns: str, pid: int) -> str:
    """Return what ps prints of a process; nothing where it has ended or there is no ps."""
    import subprocess  # not needed where there is /proc, and every front end imports this module

    try:
        done = subprocess.run(
            ["ps", "-o", columns, "-p", str(pid)],
            capture_output=True,
            timeout=PS,
            check=False,
            env={"PATH": os.environ.get("PATH", os.defpath), "LC_ALL": "C"},
        )
    except (OSError, subprocess.SubprocessError):
        return ""
    return done.stdout.decode("ascii", "replace")
