"""The journal of a batch: append every result as it arrives, so that a rerun does not compute it again.

    {"mixcli": "batch journal", "version": 1}
    {"key": "<32 hex digits>", "n": 12, "crc": "<8 hex digits>", "outcome": {...}}

A line is written by one write() when its outcome arrives, so it survives any end of this process; fsync runs once a second, so a power failure costs a second. An incomplete last line is removed when the journal is opened again.
`crc` is the CRC-32 of the rest of a line: one that was changed is computed again. Lines of earlier versions have none.
Keys are hashes of the request and of the model or server; they do not include ids and places, so records may be added,
removed and changed between two runs, and only what is new is computed. `n` is the record's place in the input: of equal records each gets
back its own outcome, and one that has none yet gets another's. Records that failed are not kept: they are tried again.
"""

import errno
import fcntl
import hashlib
import json
import os
import re
import threading
import time
import zlib
from collections import deque
from collections.abc import Generator, Iterator
from pathlib import Path
from typing import BinaryIO, NamedTuple

from mixcli.batch.output import json_line
from mixcli.errors import InUse, UsageError
from mixcli.host.protocol.messages import Fields
from mixcli.system.console import console
from mixcli.system.formatting import counted
from mixcli.system.locks import is_still
from mixcli.system.strict_json import containers

HEADER = b'{"mixcli": "batch journal", "version": 1}\n'
LINE = re.compile(
    rb'(\{"key": "([0-9a-f]{32})", "n": (\d{1,18}), )(?:"crc": "([0-9a-f]{8})", )?"outcome": (\{.*\})\}'
)
SYNC = 1.0  # seconds between two fsyncs
AROUND = 1 << 15  # places before and behind the current one whose old outcomes are known: about 30 MB


def key_of(settings: str, body: Fields) -> str:
    """Return the name of a request: 32 hex digits over it and the settings under which it is asked.

    The order of names is of no matter but in the properties of a schema: the answer is written in that order.
    """
    orders = [names for names in _orders(body) if names != sorted(names)]
    text = json.dumps([settings, body, *orders], sort_keys=True, ensure_ascii=True)
    return hashlib.blake2b(text.encode(), digest_size=16).hexdigest()


def _orders(body: Fields) -> Iterator[list[str]]:
    """Yield the names of the properties of each schema in a request."""
    for node, _ in containers(body):
        if isinstance(node, dict) and isinstance(properties := node.get("properties"), dict):
            yield list(properties)


class JournalLine(NamedTuple):
    """A sound line: the key, the place in the input, and the outcome as JSON."""

    key: str
    place: int
    outcome: bytes

    @classmethod
    def read(cls, raw: bytes) -> "JournalLine | None":
        """Return what a line says; None where it is not one, or was changed."""
        match = LINE.fullmatch(raw.removesuffix(b"\n"))
        if match is None:
            return None
        head, key, place, crc, outcome = match.groups()
        if crc is not None and int(crc, 16) != zlib.crc32(outcome, zlib.crc32(head)):
            return None
        return cls(key.decode(), int(place), outcome)

    def written(self) -> bytes:
        """Return the line with its checksum."""
        head = f'{{"key": "{self.key}", "n": {self.place}, '.encode()
        crc = zlib.crc32(self.outcome, zlib.crc32(head))
        return b'%b"crc": "%08x", "outcome": %b}\n' % (head, crc, self.outcome)


class BatchJournal:
    """An opened journal: `take` gives what an earlier run has computed, `append` keeps what this one computes.

    An earlier run wrote in the order of completion, which is nearly that of the input. So the old lines are read along with
    the input, AROUND places ahead, and let go AROUND places behind: memory does not grow with the journal.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._file = _opened(path)
        self._end = self._old_end = self._file.seek(0, os.SEEK_END)
        self._old = self._read_old()
        self._lock = threading.Lock()
        self._seen: dict[
            str, dict[int, int]
        ] = {}  # key -> place -> offset of what its own record has not taken
        self._read: deque[tuple[str, int]] = deque()  # what was put there, in order
        self._last = -1  # the place of the last of them
        self._synced = time.monotonic()

    def take(self, key: str, place: int) -> dict[str, object] | None:
        """Return what an earlier run has computed for a request, or None. May be called from several threads."""
        with self._lock:
            offset, is_own = self._find(key, place)
            if offset is None:
                return None
            line = JournalLine.read(_line_at(self._file.fileno(), offset))
            if line is None or line.key != key:  # the disk has changed it
                return None
            try:
                outcome = json.loads(line.outcome)
            except (ValueError, RecursionError):
                return None
            if not isinstance(outcome, dict) or not {"result", "body"} & set(outcome):
                return None
            if not is_own:
                self._write(key, place, outcome)
            return outcome

    def append(self, key: str, place: int, outcome: Fields) -> None:
        """Keep an outcome; OSError (ENOSPC) leaves the lines before it whole."""
        with self._lock:
            self._write(key, place, outcome)

    def sync(self) -> None:
        """Flush everything to the disk."""
        os.fsync(self._file.fileno())
        self._synced = time.monotonic()

    def close(self) -> None:
        """Sync and close; remove an empty journal."""
        with self._lock:
            self._old.close()
            if self._end <= len(HEADER):  # nothing was computed
                self.path.unlink(missing_ok=True)
            self.sync()
            self._file.close()

    def _find(self, key: str, place: int) -> tuple[int | None, bool]:
        """Return the offset of an outcome, and whether it is the record's own; another's stays there for its owner."""
        while self._read and self._read[0][1] < place - AROUND:
            self._forget(*self._read.popleft())
        while place not in self._seen.get(key, ()) and self._last < place + AROUND:
            found = next(self._old, None)
            if found is None:
                break
            self._seen.setdefault(found[0], {})[found[1]] = found[2]
            self._read.append(found[:2])
            self._last = found[1]
        places = self._seen.get(key)
        if not places:
            return None, False
        if place in places:
            return self._forget(key, place), True
        return next(iter(places.values())), False

    def _forget(self, key: str, place: int) -> int | None:
        places = self._seen.get(key, {})
        offset = places.pop(place, None)
        if not places:
            self._seen.pop(key, None)
        return offset

    def _write(self, key: str, place: int, outcome: Fields) -> None:
        line = JournalLine(key, place, json_line(outcome).rstrip("\n").encode()).written()
        written = 0
        try:
            while written < len(line):
                written += os.pwrite(self._file.fileno(), line[written:], self._end + written)
        except OSError as error:
            error.filename = error.filename or str(self.path)
            os.ftruncate(self._file.fileno(), self._end)
            raise
        self._end += len(line)
        if time.monotonic() - self._synced >= SYNC:
            self.sync()

    def _read_old(self) -> Generator[tuple[str, int, int], None, None]:
        """Yield key, place and offset of every sound line that was there when the journal was opened."""
        bad = 0
        with self.path.open("rb") as lines:
            offset = len(lines.readline())
            for raw in lines:
                if offset >= self._old_end:
                    break
                if (line := JournalLine.read(raw)) is None:
                    bad += 1
                else:
                    yield line.key, line.place, offset
                offset += len(raw)
        if bad:
            console.warn(
                f"{counted(bad, 'line')} of {self.path} cannot be read; those results are computed again"
            )


def _opened(path: Path) -> BinaryIO:
    """Open or make a journal, and cut off a line that was being written when its writer ended."""
    file = _locked(path)
    first = file.readline(len(HEADER) + 1)
    if HEADER.startswith(first) and first != HEADER:  # new, or killed while the first line was written
        _begin(file, path)
    elif first != HEADER:
        file.close()
        raise UsageError(f"{path} is not a mixcli batch journal; choose another with --journal")
    _cut_torn_line(file)
    return file


def _locked(path: Path) -> BinaryIO:
    """Open a journal and hold it. Another batch that has just ended may have removed the file that was opened: then it is opened again."""
    while True:
        file = os.fdopen(os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600), "r+b", buffering=0)
        try:
            fcntl.flock(
                file, fcntl.LOCK_EX | fcntl.LOCK_NB
            )  # the kernel releases the lock when its holder ends
        except BlockingIOError as error:
            file.close()
            raise InUse(
                f"another mixcli batch is writing {path}; wait for it or choose another output"
            ) from error
        except OSError:
            pass  # a file system without locks
        if is_still(path, file.fileno()):
            return file
        file.close()


def _begin(file: BinaryIO, path: Path) -> None:
    """Write the first line; OSError with the name of the file, which is removed where a full disk has no room for it."""
    try:
        file.truncate(0)
        if os.pwrite(file.fileno(), HEADER, 0) < len(HEADER):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
    except OSError as error:
        file.close()
        path.unlink(missing_ok=True)
        error.filename = error.filename or os.fspath(path)
        raise


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


def _line_at(handle: int, offset: int) -> bytes:
    pieces: list[bytes] = []
    while True:
        piece = os.pread(handle, 1 << 14, offset)
        end = piece.find(b"\n")
        if end >= 0 or not piece:
            return b"".join([*pieces, piece[: end if end >= 0 else None]])
        pieces.append(piece)
        offset += len(piece)
