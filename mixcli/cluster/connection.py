"""Connect to a Ray cluster, and read its errors. Ray is imported only when a command is called with --ray."""

import os
import socket
from typing import Any

from mixcli.errors import NotReachable, UsageError

KNOCK = 10.0  # seconds that a cluster's address may take to answer
INSTALL = "run pip install '.[ray]' in mixcli's repository"
# errors of the cluster; a bug that a request triggers is a RayTaskError instead
LOST = ("RayActorError", "NodeDiedError", "WorkerCrashedError", "OutOfMemoryError", "ObjectLostError")


def connected(address: str) -> Any:
    """Return ray, connected to a cluster; MixcliError says what is missing."""
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    try:
        import ray
        import ray.exceptions
        import ray.util.scheduling_strategies
    except ImportError as error:
        raise UsageError(f"--ray needs Ray, which is not installed; {INSTALL}") from error
    if not ray.is_initialized():
        try:
            _knock(address)
            ray.init(address, logging_level="ERROR", log_to_driver=False)
        except (OSError, RuntimeError, ValueError) as error:
            raise _unreachable(address, error) from error
    return ray


def _unreachable(address: str, error: Exception) -> NotReachable:
    """Return the error for a failed connection: other versions, or no cluster at that address."""
    words = " ".join(str(error).split()) or type(error).__name__
    if "version mismatch" in words.lower():
        return NotReachable(
            f"the Ray cluster at {address} and this machine differ in their versions: {words}"[:500]
        )
    first = (str(error).strip() or type(error).__name__).splitlines()[0]
    return NotReachable(f"no Ray cluster at {address} ({first}); start one with `ray start --head`")


def _knock(address: str) -> None:
    """Raise OSError at once where nothing listens; Ray itself would try for minutes."""
    host, _, port = address.removeprefix("ray://").rpartition(":")
    if host and port.isdigit():
        socket.create_connection((host, int(port)), timeout=KNOCK).close()


def lost_errors(ray: Any) -> tuple[type[Exception], ...]:
    """Return the errors of Ray that say that a node, or the process of an engine, is gone; not every release has all of them."""
    found = (getattr(ray.exceptions, name, None) for name in LOST)
    return tuple(error for error in found if error is not None)


def cause(error: Exception) -> str:
    """Return what an error of Ray says, without the traceback of the other machine."""
    found = getattr(error, "cause", None) or error
    words = (str(found).strip() or "no reason given").splitlines()
    return f"{type(found).__name__}: {words[0]}"[:300]
