"""Limits that a child process sets for itself before it computes with untrusted data."""

import resource
from contextlib import suppress


def limit(kind: int, most: int) -> None:
    """Limit a resource of this process (resource.RLIMIT_*) to `most`, or to what it may have, if that is less.

    macOS refuses some limits, such as that of the address space: there the process works without them.
    """
    _, hard = resource.getrlimit(kind)
    most = most if hard == resource.RLIM_INFINITY else min(most, hard)
    with suppress(ValueError, OSError):
        resource.setrlimit(kind, (most, most))


def no_core_dump() -> None:
    """Leave no core file when this process crashes, which is expected of it."""
    limit(resource.RLIMIT_CORE, 0)


__all__ = ["limit", "no_core_dump"]
