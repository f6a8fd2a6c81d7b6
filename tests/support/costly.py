"""Texts and values that were made to cost: what handles them runs in a child process, because what goes wrong may hold Python's lock for hours."""

import subprocess
import sys

from tests.support.waiting import LIMIT

_GIB = 1 << 30


def runs(code: str, *, gib: float = 0.0) -> str:
    """Run Python code in a process of its own and return what it prints; AssertionError where it fails, takes longer than LIMIT, or takes `gib` more memory."""
    limit = f"""
import resource
now = int(open("/proc/self/statm").read().split()[0]) * resource.getpagesize()
resource.setrlimit(resource.RLIMIT_AS, (now + {int(gib * _GIB)},) * 2)
"""
    before, _, work = code.partition("# limited\n")
    whole = before + (limit + work if gib else work)
    try:
        done = subprocess.run(
            [sys.executable, "-c", whole], capture_output=True, text=True, timeout=LIMIT, check=False
        )
    except subprocess.TimeoutExpired:
        raise AssertionError(f"it took more than {LIMIT:.0f} s") from None
    assert done.returncode == 0, done.stderr[-2000:]
    return done.stdout.strip()
