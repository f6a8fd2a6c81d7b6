"""What goes wrong in one request ends that request; the process goes on for all others."""

import traceback
from collections.abc import Iterator
from contextlib import contextmanager

from mixcli.errors import InternalError, MixcliError


def request_error(error: Exception) -> MixcliError:
    """Return the error that ends one request: its own, or for a bug one that names it; a bug's traceback goes to stderr, the host's log."""
    if isinstance(error, MixcliError):
        return error
    traceback.print_exception(error)
    said = f"{type(error).__name__}: {error}"
    return InternalError(
        f"internal error: {said:.300}; it ended this request only, the log has the traceback"
    )


@contextmanager
def survived() -> Iterator[None]:
    """Go on after what no request depends on, such as a cache on disk; the traceback on stderr says what went wrong."""
    try:
        yield
    except Exception:
        traceback.print_exc()
