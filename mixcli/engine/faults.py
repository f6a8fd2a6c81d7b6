"""Turn an exception in one request into the error of that request, so that the process continues."""

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
        f"internal error: {said:.300}; only this request failed; the traceback is in the log"
    )


@contextmanager
def survived() -> Iterator[None]:
    """Log the error of an optional part, such as the cache on disk, with its traceback on stderr, and continue."""
    try:
        yield
    except Exception:
        traceback.print_exc()
