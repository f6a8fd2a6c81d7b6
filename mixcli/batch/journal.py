"""The journal of a batch: every outcome once, appended as it comes, so that a kill costs nothing that was computed.

    {"mixcli": "batch journal", "version": 1}
    {"key": "<32 hex digits>", "outcome": {...}}

A line is written by one write() when its outcome arrives, so it survives the end of this process in whatever way; it is brought to the
disk (fsync) once a second, so a power failure costs a second. A last line without its end is cut off when the journal is
opened again. Keys are hashes of the request and of whom it was asked; ids and line numbers are no part of them, so records may
be added, removed and changed between two runs, and only what is new is computed. Records that failed are not kept: they are tried again.
"""

import fcntl
import hashlib
import json
import os
import threading
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, BinaryIO

from mixcli.console import console
from mixcli.errors import UsageError

HEADER = b'{"mixcli": "batch journal", "version": 1}\n'
SYNC = 1.0  # seconds between two fsyncs
AHEAD = 1 << 17  # keys that are held at a time while an old journal is read: about 20 MB


def key_of(settings: str, body: Mapping[str, Any]) -> str:
    """Give the name of a request: 32 hex digits over it and the settings under which it is asked."""
    text = json.dumps([settings, body], sort_keys=True, ensure_ascii=True)
    return hashlib.blake2b(text.encode(), digest_size=16).hexdigest()


class Journal:
    """An opened journal: `take` gives what an earlier run has computed, `append` keeps what this one computes.

    An earlier run wrote in the order of completion, which is nearly that of the input. So the old lines are read along with
    the input, at most AHEAD keys ahead, and memory does not grow with the journal.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._file = _opened(path)
        self._end = self._old_end = self._file.seek(0, os.SEEK_END)
        self._old = self._read_old()
        self._lock = threading.Lock()
        self._seen: dict[str, list[int]] = {}  # key -> offsets of outcomes that nobody has taken yet
        self._n_seen = 0
        self._synced = time.monotonic()

    def take(self, key: str) -> dict[str, Any] | None:
        """Give an outcome of an earlier run and forget it, or None when there is none; may be called from several threads."""
        with self._lock:
            offset = self._take(key)
        if offset is None:
            return None
        try:
            outcome: dict[str, Any] = _line_at(self._file.fileno(), offset)["outcome"]
        except ValueError:  # the disk has changed it
            return None
        return outcome

    def append(self, key: str, outcome: Mapping[str, Any]) -> None:
        """Keep an outcome; OSError (ENOSPC) leaves the lines before it whole."""
        line = json.dumps({"key": key, "outcome": outcome}, ensure_ascii=False).encode() + b"\n"
        written = 0
        try:
            while written < len(line):
                written += os.pwrite(self._file.fileno(), line[written:], self._end + written)
        except OSError:
            os.ftruncate(self._file.fileno(), self._end)
            raise
        self._end += len(line)
        if time.monotonic() - self._synced >= SYNC:
            self.sync()

    def sync(self) -> None:
        """Bring everything to the disk."""
        os.fsync(self._file.fileno())
        self._synced = time.monotonic()

    def close(self) -> None:
        """Sync and let go."""
        self.sync()
        self._file.close()

    def _take(self, key: str) -> int | None:
        while key not in self._seen and self._n_seen < AHEAD:
            found = next(self._old, None)
            if found is None:
                break
            self._seen.setdefault(found[0], []).append(found[1])
            self._n_seen += 1
        offsets = self._seen.get(key)
        if not offsets:
            return None
        offset = offsets.pop(0)
        if not offsets:
            del self._seen[key]
        self._n_seen -= 1
        return offset

    def _read_old(self) -> Iterator[tuple[str, int]]:
        """Yield key and offset of every sound line that was there when the journal was opened."""
        bad = 0
        with self.path.open("rb") as lines:
            offset = len(lines.readline())
            for raw in lines:
                if offset >= self._old_end:
                    break
                key = _key(raw)
                if key is None:
                    bad += 1
                else:
                    yield key, offset
                offset += len(raw)
        if bad:
            console.warn(f"{bad} lines of {self.path} cannot be read; what they held is computed again")


def _opened(path: Path) -> BinaryIO:
    """Open or make a journal, and cut off a line that was being written when its writer ended."""
    file = os.fdopen(os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600), "r+b", buffering=0)
    try:
        fcntl.flock(
            file, fcntl.LOCK_EX | fcntl.LOCK_NB
        )  # the kernel lets go when its holder ends in whatever way
    except BlockingIOError as error:
        file.close()
        raise UsageError(
            f"another mixcli batch is writing {path}; wait for it, or name another output"
        ) from error
    first = file.readline(len(HEADER) + 1)
    if HEADER.startswith(first) and first != HEADER:  # new, or killed while the first line was written
        file.truncate(0)
        os.pwrite(file.fileno(), HEADER, 0)
    elif first != HEADER:
        file.close()
        raise UsageError(f"{path} is no journal of mixcli batch; name another with --journal")
    _cut_torn_line(file)
    return file


def _cut_torn_line(file: BinaryIO) -> None:
    size = file.seek(0, os.SEEK_END)
    end = size
    while end > 0:
        start = max(0, end - 4096)
        at = os.pread(file.fileno(), end - start, start).rfind(b"\n")
        if at >= 0:
            if start + at + 1 < size:
                file.truncate(start + at + 1)
            return
        end = start


def _key(raw: bytes) -> str | None:
    """Give the key of a line; None for one that is not whole."""
    if not (raw.startswith(b'{"key": "') and raw.endswith(b"}}\n")):
        return None
    key = raw[9:41].decode("ascii", "replace")
    return key if raw[41:42] == b'"' and len(key) == 32 else None


def _line_at(handle: int, offset: int) -> dict[str, Any]:
    pieces: list[bytes] = []
    while True:
        piece = os.pread(handle, 1 << 14, offset)
        end = piece.find(b"\n")
        if end >= 0 or not piece:
            line: dict[str, Any] = json.loads(b"".join([*pieces, piece[: end if end >= 0 else None]]))
            return line
        pieces.append(piece)
        offset += len(piece)
