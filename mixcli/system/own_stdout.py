"""Keep stdout for what the user asked for, while a library runs that prints notices of its own."""

import contextlib
import os
import sys
from collections.abc import Generator

from mixcli.system.console import console


@contextlib.contextmanager
def own_stdout() -> Generator[None]:
    """Send what other code prints to stderr while the block runs, also from C++, threads and child processes; the console keeps stdout."""
    if sys.stdout is None:
        yield
        return
    sys.stdout.flush()
    kept = os.dup(1)
    with os.fdopen(kept, "w", encoding=sys.stdout.encoding, errors=sys.stdout.errors) as own:
        console.stdout = own
        os.dup2(2, 1)
        try:
            with contextlib.redirect_stdout(sys.stderr):
                yield
        finally:
            console.stdout = None
            os.dup2(kept, 1)


__all__ = ["own_stdout"]
