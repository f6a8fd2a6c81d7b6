"""What a killed write has already finished: a journal beside the .part files.

The first line is JSON that says what is being written; each further line is one finished slab, "<number> <crc32 of its bytes>" in
hex. A line is written after its bytes, so what the journal names exists unless the machine itself went down, and the
checksum tells. The open journal is also the lock: two processes never write the same result.
"""

import fcntl
import json
import os
from pathlib import Path
from types import TracebackType
from typing import Self

from quantize.errors import QuantizeError

_LINE = 18  # "%08x %08x\n"
_MAX_SIZE = 1 << 26  # bytes, enough for trillions of weights


class Journal:
    """The journal of one result, opened and locked for this process.

    `identity` stands for source, options and layout; a journal with another one is started over, and the .part files that it
    names are removed. `done` maps finished slab numbers to their crc32.
    """

    def __init__(self, path: Path, identity: str, parts: tuple[Path, ...]) -> None:
        self.path = path
        self.done: dict[int, int] = {}
        self.started_over = False
        self._fd = _open_locked(path)
        try:
            self._read(identity, parts)
        except BaseException:
            os.close(self._fd)
            raise

    def _read(self, identity: str, parts: tuple[Path, ...]) -> None:
        head, _, lines = os.pread(self._fd, _MAX_SIZE, 0).partition(b"\n")
        old_identity, old_parts = _parse_head(head)
        if old_identity != identity:
            self.started_over = bool(head)
            for name in {*old_parts, *(part.name for part in parts)}:
                (self.path.parent / name).unlink(missing_ok=True)
            os.ftruncate(self._fd, 0)
            start = json.dumps({"identity": identity, "parts": [part.name for part in parts]}) + "\n"
            os.write(self._fd, start.encode())
            return
        for position in range(0, len(lines) - _LINE + 1, _LINE):
            number, _, checksum = lines[position : position + _LINE].partition(b" ")
            try:
                self.done[int(number, 16)] = int(checksum, 16)
            except ValueError:
                lines = lines[:position]
                break
        # A line that was cut off by a kill must not be the beginning of the next one.
        os.ftruncate(self._fd, len(head) + 1 + len(lines) // _LINE * _LINE)

    def add(self, number: int, checksum: int) -> None:
        """Record that a slab's bytes are written."""
        os.write(self._fd, b"%08x %08x\n" % (number, checksum))

    def flush(self) -> None:
        """Bring what is recorded to the disk."""
        os.fsync(self._fd)

    def forget(self, numbers: set[int]) -> None:
        """Drop slabs whose bytes turned out to be wrong."""
        for number in numbers:
            del self.done[number]
        head = os.pread(self._fd, _MAX_SIZE, 0).partition(b"\n")[0]
        os.ftruncate(self._fd, len(head) + 1)
        for number, checksum in self.done.items():
            self.add(number, checksum)

    def remove(self) -> None:
        """Delete the journal: its result is published."""
        self.path.unlink(missing_ok=True)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        os.close(self._fd)


def _open_locked(path: Path) -> int:
    while True:
        fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_APPEND | os.O_NOFOLLOW | os.O_CLOEXEC, 0o644)
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if os.path.lexists(path) and os.path.samestat(os.fstat(fd), os.lstat(path)):
                return fd
        except BlockingIOError:
            os.close(fd)
            raise QuantizeError(
                f"{path.name} is in use: another process writes the same file; wait for it."
            ) from None
        except FileNotFoundError:
            pass
        os.close(fd)  # whoever held the lock has just published and removed this journal


def _parse_head(line: bytes) -> tuple[str, list[str]]:
    """Read a journal's first line; only plain names of .part files are taken from it."""
    try:
        head = json.loads(line)
        names = [str(name) for name in head["parts"]]
        return str(head["identity"]), [name for name in names if name.endswith(".part") and "/" not in name]
    except (ValueError, TypeError, KeyError):
        return "", []


__all__ = ["Journal"]
