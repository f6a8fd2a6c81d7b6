"""Notes: small private JSON files in the folder of sockets, each of one process that others look for."""

import contextlib
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Protocol, TypeVar

from mixcli.host.protocol.messages import Fields
from mixcli.system.process_state import born
from mixcli.system.regular_file import read_regular

LONGEST = 1 << 16  # bytes of a note


class OfProcess(Protocol):
    """A note of a process: its id, and when it began, since ids come again."""

    @property
    def pid(self) -> int: ...
    @property
    def born(self) -> str: ...


P = TypeVar("P", bound=OfProcess)


def runs(pid: int, born_at: str) -> bool:
    """Return whether the process that began then still runs; a zombie, or another one that has its id now, does not."""
    return bool(born_at) and born(pid) == born_at


def write_note(path: Path, fields: Fields) -> None:
    """Write a note that only this user can read; without room for it there is none."""
    with contextlib.suppress(OSError):
        part = path.with_suffix(".part")
        part.touch(0o600)
        part.write_text(json.dumps(fields), "utf-8")
        part.replace(path)


def remove_note(path: Path) -> None:
    """Remove a note, if it is there."""
    with contextlib.suppress(OSError):
        path.unlink(missing_ok=True)


def notes(folder: Path, suffix: str) -> Iterator[tuple[Path, Fields]]:
    """Yield the notes with a suffix, each with its fields by name; what is not one is left out."""
    for path in sorted(folder.glob(f"*{suffix}")):
        try:
            fields = json.loads(read_regular(path, LONGEST))
        except (OSError, ValueError, RecursionError):
            continue
        if isinstance(fields, dict):
            yield path, fields


def of_types(kind: type[P], fields: Fields) -> P | None:
    """Return the fields of a note as a named tuple; None where one is missing, unknown or of another type: by another version, or by hand."""
    types = kind.__annotations__
    if fields.keys() != types.keys() or any(type(fields[name]) is not types[name] for name in types):
        return None
    values: list[Any] = [fields[name] for name in types]
    return kind(*values)


def running(kind: type[P], folder: Path, suffix: str) -> Iterator[P]:
    """Yield the notes with a suffix whose process runs, as named tuples of a kind; those of dead processes are cleared away."""
    for path, fields in notes(folder, suffix):
        record = of_types(kind, fields)
        if record is None:  # of another version
            continue
        if runs(record.pid, record.born):
            yield record
        else:
            remove_note(path)


__all__ = ["notes", "of_types", "remove_note", "running", "runs", "write_note"]
