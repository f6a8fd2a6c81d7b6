"""What ends one request: an exception in it becomes its error, so that the process continues; a model that computes NaN; a client that has left."""

import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from mixcli.errors import InternalError, MixcliError
from mixcli.llama.model import Model

IsOver = Callable[[], bool]  # whether no client waits for the result of a long computation any more


class BadLogits(MixcliError):
    """The model computes NaN: its weights are broken."""

    def __init__(self, model: Model) -> None:
        super().__init__(
            f"{model.path.name} computes NaN: its weights are damaged; "
            "check the file with `mixcli verify` or pull it again"
        )


class Abandoned(MixcliError):
    """No client waits for the result any more."""


def check_awaited(is_over: IsOver) -> None:
    """Raise Abandoned between two parts of a long computation that no client waits for."""
    if is_over():
        raise Abandoned("the client has left")


def always_awaited() -> bool:
    """Return that a result is waited for in any case."""
    return False


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
