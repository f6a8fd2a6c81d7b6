"""Checksums of files: SHA-256, and git's SHA-1 for files that are not in LFS."""

import hashlib
from collections.abc import Callable
from pathlib import Path
from typing import Protocol

CHUNK = 1 << 20
Report = Callable[[float, float, str], None]


class Digest(Protocol):
    """What hashlib's objects offer."""

    def update(self, data: bytes | memoryview, /) -> None: ...
    def hexdigest(self) -> str: ...


def digest_for(etag: str, size: int) -> Digest:
    """Return the digest that an etag of the Hub is the result of: 64 hex digits are SHA-256, 40 are git's SHA-1."""
    if len(etag) == 64:
        return hashlib.sha256()
    return hashlib.sha1(b"blob %d\0" % size, usedforsecurity=False)


def feed(digest: Digest, path: Path, report: Report, stage: str, total: int | None = None) -> int:
    """Put a file's bytes into a digest; returns how many there were."""
    done = 0
    size = path.stat().st_size if total is None else total
    with path.open("rb") as file:
        while chunk := file.read(CHUNK):
            digest.update(chunk)
            done += len(chunk)
            report(done, size, stage)
    return done


def sha256(path: Path, report: Report) -> str:
    """Return a file's SHA-256 as hex digits."""
    digest = hashlib.sha256()
    feed(digest, path, report, f"checking {path.name}")
    return digest.hexdigest()
