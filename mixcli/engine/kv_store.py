"""The KV cache on disk: computed prefixes that a later process can load.

An entry is one file: what `llama_state_seq_save_file` writes (a magic number, a version, the number of tokens, the tokens, the state),
and after it a magic number and a SHA-256 over the store's key and all before. It belongs to one model, cache type and library (`key`); the folder as a
whole has a limit, and the longest unused goes first. A file that does not check is removed. Nothing here can fail an answer: without
the file it is computed.

The engine's thread copies a state out of the context straight into the file, after its size was compared with the limit and the disk, and
loads one whose checksum was looked at before. Hashing, fsync, and the removal of others happen in other threads.
"""

import contextlib
import hashlib
import os
import queue
import shutil
import stat
import struct
import tempfile
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from mixcli.engine.faults import survived
from mixcli.system.regular_file import open_regular

MAGIC = b"mixcliKV"
_HEAD = struct.Struct("<III")  # llama.cpp's: magic number, version, number of tokens
_SEAL = struct.Struct("<8s32s")
_LLAMA = 0x67677371  # "ggsq", LLAMA_STATE_SEQ_MAGIC
MIN_TOKENS = 64  # shorter texts are computed sooner than read
MAX_TOKENS = 1 << 22
MAX_KNOWN = 4096  # entries that are looked through
RESERVE = 64 << 20  # bytes of the disk that are left to others
PENDING = 4  # files that wait for the store's thread
PIECE = 1 << 20
SLACK = 64  # bytes of frame that llama.cpp counts in memory and leaves out in a file
ABANDONED = 600  # seconds after which an unfinished file counts as abandoned
_UNFINISHED = ".unfinished-"

Tokens = NDArray[np.int32]


@dataclass(frozen=True)
class KvEntry:
    """A text on disk, and how many of its tokens a prompt begins with."""

    path: Path
    tokens: tuple[int, ...]
    n_shared: int

    @property
    def n_tokens(self) -> int:
        return len(self.tokens)


class KvStore:
    """The entries of one model in `folder`/`key`; `limit` is bytes for the whole folder. `close` waits for what is being written."""

    def __init__(self, folder: Path, key: str, limit: int) -> None:
        self._folder, self._own, self._key, self._limit = folder, folder / key, key, limit
        self._known: dict[Path, Tokens] = {}
        self._sound: dict[
            Path, tuple[int, int, int]
        ] = {}  # whose checksum was right, by inode, size and time
        self._lock = threading.Lock()
        self._work: queue.Queue[Callable[[], object] | None] = queue.Queue()
        self._thread: threading.Thread | None = None
        for path in _listed(self._own, f"{_UNFINISHED}*"):  # of a process that was killed while it wrote
            with contextlib.suppress(OSError):
                if time.time() - path.stat().st_mtime > ABANDONED:
                    path.unlink()
        for path in _listed(self._own, "*.kv")[:MAX_KNOWN]:
            with contextlib.suppress(OSError, ValueError):
                self._known[path] = _read_tokens(path)

    def find(self, tokens: Sequence[int]) -> KvEntry | None:
        """Return the entry that shares the longest beginning with a prompt; None when none does."""
        best, longest = None, 0
        wanted = np.asarray(tokens[:-1], np.int32)
        with self._lock:
            for path, known in self._known.items():
                n = min(len(known), len(wanted))
                different = np.flatnonzero(known[:n] != wanted[:n])
                n_shared = int(different[0]) if different.size else n
                if n_shared > longest:
                    best, longest = path, n_shared
            return KvEntry(best, tuple(self._known[best].tolist()), longest) if best is not None else None

    def is_checked(self, entry: KvEntry) -> bool:
        """Return whether `check` would answer at once, because it has seen this file before."""
        try:
            return self._sound.get(entry.path) == _mark(entry.path.lstat())
        except OSError:
            return True  # it is gone

    def check(self, entry: KvEntry) -> bool:
        """Return whether an entry's file is intact; remove the entry if it is damaged or missing."""
        try:
            with open_regular(entry.path, os.O_NOFOLLOW) as file:
                status = os.fstat(file.fileno())
                if self._sound.get(entry.path) != _mark(status):
                    end = status.st_size - _SEAL.size
                    if end < _HEAD.size or self._seal(file.fileno(), end) != os.pread(
                        file.fileno(), _SEAL.size, end
                    ):
                        raise ValueError("checksum")
            os.utime(entry.path)
            self._sound[entry.path] = (*_mark(status)[:2], entry.path.stat().st_mtime_ns)
        except (OSError, ValueError):
            self.forget(entry)
            return False
        return True

    def forget(self, entry: KvEntry) -> None:
        """Remove an entry that cannot be used."""
        with self._lock:
            self._known.pop(entry.path, None)
            self._sound.pop(entry.path, None)
        with contextlib.suppress(OSError):
            entry.path.unlink(missing_ok=True)

    def save(self, tokens: Sequence[int], size: Callable[[], int], write: Callable[[Path], bool]) -> bool:
        """Begin to keep a text, in place of those that are a beginning of it.

        `size` returns the bytes of its state, `write` writes tokens and state to a file as llama.cpp does; neither is called where
        the text is too short or there already, and `write` is not where the state is too large for the limit or the disk. False
        then, and when the disk refuses.
        """
        if not MIN_TOKENS <= len(tokens) <= MAX_TOKENS or self._work.qsize() >= PENDING:
            return False
        array = np.asarray(tokens, np.int32)
        path = self._path(array)
        with self._lock:
            is_known = path in self._known
        if is_known:
            with contextlib.suppress(OSError):
                os.utime(path)
                return True
        unfinished = self._written(size() + array.nbytes + _HEAD.size, write)
        if unfinished is None:
            return False
        self._put(lambda: self._finish(unfinished, array))
        return True

    def _written(self, n_bytes: int, write: Callable[[Path], bool]) -> Path | None:
        """Write a file of so many bytes where the limit and the disk have room; None where not."""
        whole = n_bytes + _SEAL.size
        if whole > self._limit:
            return None
        try:
            self._own.mkdir(parents=True, exist_ok=True, mode=0o700)
            n_freed = self._make_room(whole)
            if shutil.disk_usage(self._own).free + n_freed < whole + RESERVE:
                return None
            handle, name = tempfile.mkstemp(dir=self._own, prefix=_UNFINISHED)
        except OSError:
            return None
        os.close(handle)
        unfinished = Path(name)
        is_whole = False
        try:
            is_whole = write(unfinished) and abs(unfinished.stat().st_size - n_bytes) <= SLACK
        except OSError:
            pass
        finally:
            if not is_whole:
                with contextlib.suppress(OSError):
                    unfinished.unlink(missing_ok=True)
        return unfinished if is_whole else None

    def flush(self) -> None:
        """Wait until everything that was saved is on the disk."""
        if self._thread is not None:
            self._work.put(None)
            self._thread.join()
            self._thread = None

    def _put(self, work: Callable[[], object]) -> None:
        if self._thread is None:
            self._thread = threading.Thread(target=self._work_off, name="kv store", daemon=True)
            self._thread.start()
        self._work.put(work)

    # the store's thread

    def _work_off(self) -> None:
        while (work := self._work.get()) is not None:
            with survived():
                work()

    def _finish(self, unfinished: Path, tokens: Tokens) -> None:
        try:
            self._seal_and_name(unfinished, tokens)
        except (OSError, ValueError):  # or it was cut off by another process
            _remove([unfinished])

    def _seal_and_name(self, unfinished: Path, tokens: Tokens) -> None:
        """Seal a file, flush and rename it, and remove the entries that are prefixes of it."""
        path = self._path(tokens)
        with unfinished.open("r+b") as file:
            end = file.seek(0, os.SEEK_END)
            file.write(self._seal(file.fileno(), end))
            file.flush()
            os.fsync(file.fileno())
        unfinished.replace(path)
        with self._lock:
            shorter = [
                older
                for older, known in self._known.items()
                if len(known) < len(tokens) and np.array_equal(known, tokens[: len(known)])
            ]
            for older in shorter:
                del self._known[older]
            self._known[path] = tokens
        self._sound[path] = _mark(path.stat())
        _remove(shorter)

    def _seal(self, handle: int, end: int) -> bytes:
        """Return what stands after the first `end` bytes of a sound file of this store."""
        found = hashlib.sha256(self._key.encode())
        at = 0
        while at < end:
            piece = os.pread(handle, min(PIECE, end - at), at)
            if not piece:
                raise ValueError("truncated")
            found.update(piece)
            at += len(piece)
        return _SEAL.pack(MAGIC, found.digest())

    def _path(self, tokens: Tokens) -> Path:
        return self._own / f"{hashlib.sha256(tokens.tobytes()).hexdigest()[:32]}.kv"

    def _make_room(self, n_bytes: int) -> int:
        """Take away the longest unused entries, of any model, until so many bytes fit under the limit; another host may do the same.

        Returns the bytes of those that went. They only lose their names here: a large file takes long to remove.
        """
        found: list[tuple[float, int, Path]] = []
        for path in _listed(self._folder, "*/*.kv"):
            with contextlib.suppress(OSError):
                status = path.lstat()
                if stat.S_ISREG(status.st_mode):
                    found.append((status.st_mtime, status.st_size, path))
        total = sum(size for _, size, _ in found) + n_bytes
        n_freed = 0
        nameless: list[Path] = []
        for _, size, path in sorted(found):
            if total - n_freed <= self._limit:
                break
            with contextlib.suppress(FileNotFoundError):
                nameless.append(path.rename(path.with_name(f"{_UNFINISHED}{path.name}")))
            with self._lock:
                self._known.pop(path, None)
            n_freed += size
        if nameless:
            self._put(lambda: _remove(nameless))
        return n_freed


def _mark(status: os.stat_result) -> tuple[int, int, int]:
    return status.st_ino, status.st_size, status.st_mtime_ns


def _remove(paths: Sequence[Path]) -> None:
    for path in paths:
        with contextlib.suppress(OSError):
            path.unlink(missing_ok=True)


def _listed(folder: Path, pattern: str) -> list[Path]:
    """List files, the latest name last; empty if the folder does not exist or cannot be read."""
    try:
        return sorted(folder.glob(pattern))
    except OSError:
        return []


def _read_tokens(path: Path) -> Tokens:
    """Read an entry's tokens; ValueError for a file that is not valid."""
    with open_regular(path, os.O_NOFOLLOW) as file:
        head = file.read(_HEAD.size)
        if len(head) < _HEAD.size:
            raise ValueError("truncated")
        magic, _, n_tokens = _HEAD.unpack(head)
        if magic != _LLAMA or not 0 < n_tokens <= MAX_TOKENS:
            raise ValueError("no entry")
        if os.fstat(file.fileno()).st_size < _HEAD.size + 4 * n_tokens + _SEAL.size:
            raise ValueError("truncated")
        tokens: Tokens = np.frombuffer(file.read(4 * n_tokens), np.int32)
    if len(tokens) < n_tokens:
        raise ValueError("truncated")
    return tokens
