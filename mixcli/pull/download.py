"""Download one file from the Hub into its cache: resumable and verified by checksum.

There is one part file per etag, shared by all processes, under the lock that huggingface_hub takes too. Bytes are
hashed while they come; a part that was left behind is hashed first. Only a file whose checksum is right is renamed into the cache.
"""

import os
import queue
import threading
import time
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import httpx2
from huggingface_hub.errors import HfHubHTTPError

from mixcli.errors import DoesNotFit, IntegrityError
from mixcli.pull import hub_client
from mixcli.pull.hub_client import RemoteFile, RemoteRepo
from mixcli.pull.hub_errors import Failure
from mixcli.pull.hub_http import Mismatch
from mixcli.pull.retry import Cancelled, RetryPolicy
from mixcli.store import hashing
from mixcli.store.hashing import Digest, Report
from mixcli.store.hub_cache import CachedRepo
from mixcli.store.waiting import Waiting
from mixcli.system.durable import flush
from mixcli.system.formatting import counted
from mixcli.system.locks import exclusive
from quantize.wording import DISK_FULL, disk_full

CHUNK = 1 << 18  # bytes that are read before they are written: what a kill can cost
SPAN = 8 << 30  # bytes of one request; some servers refuse more in one piece
AHEAD = 16  # chunks that wait to be hashed
PAUSE = 0.0005  # seconds between two looks at whether hashing has caught up: a chunk takes about as long
EXPIRED = {400, 401, 403, 404, 410}


@dataclass(frozen=True)
class DownloadState:
    """How much of a file is here: bytes of a part, or all of them."""

    here: int
    is_complete: bool


def state(repo: RemoteRepo, file: RemoteFile) -> DownloadState:
    """Look how much of a file is here."""
    cache = CachedRepo(repo.repo)
    if _size(cache.whole(repo.commit, file.name, file.etag)) == file.size:
        return DownloadState(file.size, True)
    return DownloadState(min(file.size, max(0, _size(cache.part(file.etag)))), False)


def fetch(
    repo: RemoteRepo,
    file: RemoteFile,
    report: Report,
    *,
    head: bytes = b"",
    stop: threading.Event | None = None,
) -> Path:
    """Download a file into the Hub's cache, resuming an earlier try, and return its path in the snapshot.

    `head` is the beginning of the file where that was fetched before. `stop` ends it with Cancelled.
    When another process fetches the same file, its progress is reported until it is done, has died, or was waited for long enough
    (MixcliError). Raises IntegrityError for wrong
    bytes (after one more try), NotReachable in words, OSError of the disk.
    """
    cache = CachedRepo(repo.repo)
    lock, part, blob = cache.lock(file.etag), cache.part(file.etag), cache.blob(file.etag)
    for folder in (lock.parent, blob.parent):
        folder.mkdir(parents=True, exist_ok=True)
    waiting = Waiting(lambda: (max(0, _size(part)), file.size), report)
    with exclusive(lock, waiting, what=f"downloading {file.name}"):
        if not _is_sound(cache.whole(repo.commit, file.name, file.etag), file, report):
            for last_try in (False, True):
                found = _fill(repo, file, part, report, b"" if last_try else head, stop)
                if found == file.etag:
                    break
                part.unlink()
                if last_try:
                    raise IntegrityError(
                        f"{repo.repo}: {file.name} was downloaded twice with the wrong checksum ({found[:16]}… instead of {file.etag[:16]}…); "
                        "the server or a proxy is broken; try another network"
                    )
            part.replace(blob)
            flush(blob.parent)
        pointer = cache.link(repo.commit, file.name, file.etag)
        cache.remember(repo.revision, repo.commit)
    return pointer


def _is_sound(here: Path, file: RemoteFile, report: Report) -> bool:
    """Return whether the cache has the file already, and remove it when its bytes are not what its name says."""
    if _size(here) != file.size:
        return False
    digest = hashing.digest_for(file.etag, file.size)
    hashing.feed(digest, here, report, f"{file.name}: checking existing data")
    if digest.hexdigest() == file.etag:
        return True
    here.unlink()
    return False


def _fill(
    repo: RemoteRepo, file: RemoteFile, part: Path, report: Report, head: bytes, stop: threading.Event | None
) -> str:
    """Complete the part file; returns the checksum of what it holds then."""
    digest = hashing.digest_for(file.etag, file.size)
    handle = os.open(part, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o644)
    try:
        here = os.fstat(handle).st_size
        if here > file.size:
            os.ftruncate(handle, 0)
            here = 0
        if len(head) > here:
            os.pwrite(handle, head[here:], here)
            here = len(head)
        if here:
            hashing.feed(digest, part, report, f"{file.name}: checking existing data", file.size)
        os.lseek(handle, here, os.SEEK_SET)
        with Behind(digest) as behind:
            sink = _Sink(handle, file, here, behind, report, stop)
            _transfer(repo, file, sink, stop)
        os.fsync(handle)
    except OSError as error:
        if error.errno not in DISK_FULL:
            raise
        missing = counted(file.size - os.fstat(handle).st_size, "byte")
        raise DoesNotFit(disk_full(part.parent, missing)) from error
    finally:
        os.close(handle)
    return digest.hexdigest()


def _transfer(repo: RemoteRepo, file: RemoteFile, sink: "_Sink", stop: threading.Event | None) -> None:
    """Request the missing bytes until all have arrived, with the retries of a download."""
    patience = RetryPolicy(repo.place(file), stop)
    url: str | None = None
    while sink.here < file.size:
        before = sink.here
        try:
            url = url or hub_client.locate(repo, file)
            stop_at = min(before + SPAN, file.size)
            with hub_client.stream(url, before, stop_at) as response:
                sink.take(
                    response.iter_raw(CHUNK),
                    skip=hub_client.offset_of(response, before, stop_at, file.size),
                    stop_at=stop_at if response.status_code == 206 else file.size,
                )
            if sink.here == before:
                raise httpx2.RemoteProtocolError("no data received", request=response.request)
        except Failure as error:
            patience.received(sink.here - before)
            patience.failed(_as_transient(error, url))
            url = None  # a signed address works for some minutes only


def _as_transient(error: Exception, url: str | None) -> Exception:
    """Take a storage host's refusal for what it nearly always is: a signed address that has expired."""
    if url is None or not isinstance(error, HfHubHTTPError) or hub_client.is_hub(str(error.response.url)):
        return error
    expired = error.response.status_code in EXPIRED
    return httpx2.RemoteProtocolError("the download URL has expired") if expired else error


class _Sink:
    """Write received bytes to the part file, hash and count them."""

    def __init__(
        self,
        handle: int,
        file: RemoteFile,
        here: int,
        behind: "Behind",
        report: Report,
        stop: threading.Event | None,
    ) -> None:
        self.here = here
        self._handle, self._file, self._behind, self._report, self._stop = handle, file, behind, report, stop

    def take(self, chunks: Iterable[bytes], skip: int, stop_at: int) -> None:
        """Write chunks, the first `skip` bytes of which are here already; raises Mismatch for what goes beyond `stop_at`."""
        for chunk in chunks:
            if self._stop and self._stop.is_set():
                raise Cancelled
            data = memoryview(chunk)[min(skip, len(chunk)) :]
            skip -= len(chunk) - len(data)
            if self.here + len(data) > stop_at:
                raise Mismatch("sends more bytes than requested")
            at = 0
            while at < len(data):
                at += os.write(self._handle, data[at:])
            self.here += len(data)
            self._behind.update(data)
            self._report(self.here, self._file.size, self._file.name)


class Behind:
    """A digest in a thread of its own, so that hashing costs a download no time.

    Ctrl-C comes at any instruction: a SimpleQueue, which is written in C, cannot be left locked by it.
    """

    def __init__(self, digest: Digest) -> None:
        self._digest = digest
        self._waiting: queue.SimpleQueue[memoryview | None] = queue.SimpleQueue()
        self._thread = threading.Thread(target=self._work, daemon=True)

    def update(self, data: memoryview) -> None:
        while self._waiting.qsize() >= AHEAD:
            time.sleep(PAUSE)
        self._waiting.put(data)

    def _work(self) -> None:
        while (data := self._waiting.get()) is not None:
            self._digest.update(data)

    def __enter__(self) -> "Behind":
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._waiting.put(None)
        self._thread.join()


def _size(path: Path) -> int:
    try:
        return path.stat().st_size
    except OSError:
        return -1
