"""Computed texts on disk: what a model has read once need not be computed again by the next process.

An entry is one file: a magic number, a SHA-256 over all that follows, the number of tokens, the tokens (int32), and the state as
llama.cpp writes it. It belongs to one model, cache type and library (`key`); the folder as a whole has a limit, and the longest
unused goes first. A file that does not check is removed. Nothing here can fail an answer: without the file it is computed.
"""

import contextlib
import hashlib
import os
import struct
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from mixcli.engine.prefix_cache import common_prefix

MAGIC = b"mixcliKV"
_HEAD = struct.Struct("<8s32sI")
MIN_TOKENS = 64  # shorter texts are computed sooner than read
MAX_TOKENS = 1 << 24
ABANDONED = 600  # seconds after which an unfinished file is nobody's
_UNFINISHED = ".unfinished-"


@dataclass(frozen=True)
class Entry:
    """A text on disk, and how many of its tokens a prompt begins with."""

    path: Path
    tokens: tuple[int, ...]
    n_shared: int

    @property
    def n_tokens(self) -> int:
        return len(self.tokens)


class KvStore:
    """The entries of one model in `folder`/`key`; `limit` is bytes for the whole folder."""

    def __init__(self, folder: Path, key: str, limit: int) -> None:
        self._folder, self._own, self._limit = folder, folder / key, limit
        self._known: dict[Path, list[int]] = {}
        for path in self._own.glob(f"{_UNFINISHED}*"):  # of a process that was killed while it wrote
            with contextlib.suppress(OSError):
                if time.time() - path.stat().st_mtime > ABANDONED:
                    path.unlink()
        for path in self._own.glob("*.kv"):
            with contextlib.suppress(OSError, ValueError):
                self._known[path] = _read_tokens(path)

    def find(self, tokens: Sequence[int]) -> Entry | None:
        """Give the entry that shares the longest beginning with a prompt; None when none does."""
        best, longest = None, 0
        wanted = list(tokens[:-1])
        for path, known in self._known.items():
            n_shared = common_prefix(known, wanted)
            if n_shared > longest:
                best, longest = path, n_shared
        return Entry(best, tuple(self._known[best]), longest) if best is not None else None

    def load(self, entry: Entry) -> bytes | None:
        """Give an entry's state; None, and the entry is gone, when the file is missing or not what was written."""
        try:
            raw = entry.path.read_bytes()
            _, digest, n_tokens = _HEAD.unpack_from(raw)
            if hashlib.sha256(memoryview(raw)[_HEAD.size - 4 :]).digest() != digest:
                raise ValueError("checksum")
            os.utime(entry.path)
        except (OSError, ValueError, struct.error):
            self._known.pop(entry.path, None)
            with contextlib.suppress(OSError):
                entry.path.unlink(missing_ok=True)
            return None
        return raw[_HEAD.size + 4 * n_tokens :]

    def save(self, tokens: Sequence[int], state: Callable[[], bytes]) -> bool:
        """Write an entry, in place of those that are a beginning of it; False when it is too short, too large, or the disk says no."""
        if len(tokens) < MIN_TOKENS:
            return False
        array = np.asarray(tokens, np.int32)
        path = self._own / f"{hashlib.sha256(array.tobytes()).hexdigest()[:32]}.kv"
        if path in self._known:
            with contextlib.suppress(OSError):
                os.utime(path)
                return True
        body = struct.pack("<I", len(tokens)) + array.tobytes() + state()
        if len(body) > self._limit:
            return False
        try:
            self._own.mkdir(parents=True, exist_ok=True, mode=0o700)
            self._make_room(len(body))
            _write(path, MAGIC + hashlib.sha256(body).digest(), body)
        except OSError:
            return False
        for older, known in list(self._known.items()):
            if list(tokens[: len(known)]) == known:
                del self._known[older]
                with contextlib.suppress(OSError):
                    older.unlink(missing_ok=True)
        self._known[path] = list(tokens)
        return True

    def _make_room(self, n_bytes: int) -> None:
        """Remove the longest unused entries, of any model, until so many bytes fit under the limit."""
        files = sorted(
            ((path.stat(), path) for path in self._folder.glob("*/*.kv")), key=lambda one: one[0].st_mtime
        )
        total = sum(status.st_size for status, _ in files) + n_bytes
        for status, path in files:
            if total <= self._limit:
                return
            path.unlink(missing_ok=True)
            self._known.pop(path, None)
            total -= status.st_size


def _read_tokens(path: Path) -> list[int]:
    """Read an entry's tokens; ValueError for a file that is none."""
    with path.open("rb") as file:
        head = file.read(_HEAD.size)
        if len(head) < _HEAD.size:
            raise ValueError("truncated")
        magic, _, n_tokens = _HEAD.unpack(head)
        if magic != MAGIC or n_tokens > MAX_TOKENS:
            raise ValueError("no entry")
        raw = file.read(4 * n_tokens)
    if len(raw) < 4 * n_tokens:
        raise ValueError("truncated")
    return [int(token) for token in np.frombuffer(raw, np.int32)]


def _write(path: Path, head: bytes, body: bytes) -> None:
    """Write a whole file or none."""
    with tempfile.NamedTemporaryFile(dir=path.parent, prefix=_UNFINISHED, delete=False) as file:
        temporary = Path(file.name)
        try:
            file.write(head)
            file.write(body)
            file.flush()
            temporary.replace(path)
        except BaseException:
            temporary.unlink(missing_ok=True)
            raise
