"""The location and identity of a host's KV cache on disk."""

import hashlib
import json
import os
from pathlib import Path

from mixcli.engine.kv_store import KvStore
from mixcli.errors import UsageError
from mixcli.system import paths
from mixcli.system.formatting import size_in_bytes
from mixcli.system.hardware import library_identity
from profiles.placement import Placement
from quantize.sources.shard_names import shard_paths

LIMIT = "4GiB"
HEAD = 1 << 20  # bytes of the file that, with its size and time, stand for it

Identity = tuple[str | int, ...]  # of each file a hash of its head, its size, time and inode


def file_identity(path: Path) -> Identity | None:
    """Return what tells a model, with all its shards, from another of the same name; None where it cannot be read."""
    found: list[str | int] = []
    try:
        for shard in shard_paths(path):
            status = shard.stat()
            with shard.open("rb") as file:
                head = hashlib.sha256(file.read(HEAD)).hexdigest()
            found += [head, status.st_size, status.st_mtime_ns, status.st_ino]
    except OSError:
        return None
    return tuple(found)


def open_store(path: Path, loaded: Identity | None, placement: Placement) -> KvStore | None:
    """Return the store of one model, cache type and library; None where MIXCLI_KV_DISK (a size, 4GiB by default) is 0 or cannot be used.

    `loaded` is the file's identity before it was loaded. Raises UsageError for a size that is not valid, and for a file that was replaced since: its
    texts would be taken for those of the other one. The model can be used without a store.
    """
    limit = _limit(os.environ.get("MIXCLI_KV_DISK", "").strip() or LIMIT)
    if not limit or loaded is None:
        return None
    if file_identity(path) != loaded:
        raise UsageError(f"the disk cache is off: {path.name} was replaced while it was loaded")
    parts = [*loaded, placement.type_k, placement.type_v, placement.flash_attn, library_identity()]
    key = hashlib.sha256(json.dumps(parts).encode()).hexdigest()[:24]
    return KvStore(paths.cache_dir() / "kv", key, limit)


def _limit(text: str) -> int:
    try:
        return size_in_bytes(text)
    except (UsageError, OverflowError):
        raise UsageError(
            f"the disk cache is off: invalid MIXCLI_KV_DISK {text!r:.40}; use a size such as 4GiB, or 0"
        ) from None
