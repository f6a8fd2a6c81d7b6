"""Small JSON caches in the cache folder: measurements, verdicts, last use.

A cache is optional: unreadable entries count as absent, failed writes are dropped, and no caller fails because of it.
Two processes that write at once lose nothing of each other's: each changes what is in the file under its lock, and replaces the file whole.
"""

import json
import os
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import TypeGuard

from mixcli.errors import MixcliError
from mixcli.system import paths
from mixcli.system.locks import exclusive
from mixcli.system.regular_file import read_regular

PATIENCE = 5.0  # seconds that another process may hold the lock; what is remembered can be measured again
MAX_BYTES = 8 << 20  # a larger file is not ours
MAX_NUMBER = 1e18  # of bytes, tokens, seconds: a larger one was not measured
MAX_GBS = 1e6  # no memory and no disk is faster: such a rate is not one that was measured


def load(name: str) -> dict[str, object]:
    """Return the cached object of a name; empty if the file is missing, incomplete, too large or not a JSON object."""
    try:
        return _read(_file(name))
    except OSError:  # the cache is a file, or another user's
        return {}


def update(name: str, change: Callable[[dict[str, object]], None]) -> bool:
    """Update the cached object of a name by `change`; False if it could not be written."""
    try:
        path = _file(name)
        with exclusive(path.with_suffix(".lock"), seconds=PATIENCE):
            known = _read(path)
            change(known)
            replace_bytes(path, (json.dumps(known, indent=1) + "\n").encode(), is_kept=False)
    except (OSError, ValueError, MixcliError):  # a full or read-only disk, or a NaN
        return False
    return True


def replace_text(path: Path, text: str, mode: int = 0o600) -> None:
    """Write a text file as `replace_bytes` does, in UTF-8. Raises OSError."""
    replace_bytes(path, text.encode(), mode)


def replace_bytes(path: Path, data: bytes, mode: int = 0o600, *, is_kept: bool = True) -> None:
    """Write a file whole or not at all: a new one beside it takes its place by one rename. Raises OSError.

    `mode` are its rights, from which the umask takes. What `is_kept` is on the disk before the rename: file systems may write the name first, and after a
    power failure the file would be empty.
    """
    part = path.with_name(f".{path.name}.{os.urandom(6).hex()}.part")
    handle = os.open(part, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, mode)
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(data)
            if is_kept:
                file.flush()
                os.fsync(file.fileno())
        part.replace(path)
    except BaseException as error:
        with suppress(OSError):
            part.unlink()
        if isinstance(error, OSError) and error.filename is None:  # a write knows no name
            raise OSError(error.errno, error.strerror, os.fspath(path)) from error
        raise


def new_text(path: Path, text: str) -> None:
    """Write a file that is not there yet, whole; of several writers one succeeds. Raises FileExistsError for one that is there, OSError."""
    os.close(
        os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    )  # the name is ours now
    try:
        replace_text(path, text)
    except BaseException:
        with suppress(OSError):
            path.unlink()
        raise


def is_number(value: object, *, above: float = -MAX_NUMBER, below: float = MAX_NUMBER) -> TypeGuard[float]:
    """Return whether a remembered value is a number between two bounds."""
    return isinstance(value, int | float) and not isinstance(value, bool) and above < value < below


def _file(name: str) -> Path:
    return paths.cache_dir() / f"{name}.json"


def _read(path: Path) -> dict[str, object]:
    try:
        raw = read_regular(path, MAX_BYTES + 1)
        known = json.loads(raw) if len(raw) <= MAX_BYTES else {}
    except (OSError, ValueError, RecursionError):
        return {}
    return known if isinstance(known, dict) else {}
