"""Query macOS for what Linux has in /proc and /sys: free memory, and the cores to compute on."""

import re
import subprocess
import sys
from functools import cache

SYSTEM: str = sys.platform
SECONDS = 5.0  # for a program of the system to answer
# free, or released when a program needs them: what Activity Monitor does not count as used (<mach/vm_statistics.h>)
AVAILABLE = ("free", "speculative", "inactive", "purgeable")
# of one kind of core, the fastest, where there are several (Apple silicon); else all (Intel)
CORES = ("hw.perflevel0.physicalcpu", "hw.physicalcpu")


def memory_free() -> int | None:
    """Return the bytes that programs can have; None on other systems."""
    text = _said("vm_stat")
    page = re.search(r"page size of (\d+) bytes", text)
    pages = dict(re.findall(r"^Pages (\w+): +(\d+)\.$", text, re.M))
    if page is None or "free" not in pages:
        return None
    return int(page[1]) * sum(int(pages.get(name, 0)) for name in AVAILABLE)


def fast_cores() -> int | None:
    """Return the number of fast cores; None on other systems."""
    return next((n for name in CORES if (n := _number(name))), None)


@cache
def _number(name: str) -> int | None:
    """Return a number of sysctl(8); these do not change while the machine runs."""
    text = _said("sysctl", "-n", name).strip()
    return int(text) if text.isdigit() else None


def _said(*words: str) -> str:
    """Return what a program of macOS prints; nothing on other systems, or where it fails."""
    if SYSTEM != "darwin":
        return ""
    try:
        return subprocess.run(words, capture_output=True, text=True, check=False, timeout=SECONDS).stdout
    except (OSError, subprocess.SubprocessError):
        return ""


__all__ = ["fast_cores", "memory_free"]
