"""Keep a folder of the cache below a size: the files that were used longest ago are removed."""

from contextlib import suppress
from pathlib import Path


def trim(folder: Path, pattern: str, n_bytes: int, *kept: Path) -> None:
    """Remove files of a pattern, the longest unused first, until the rest has at most `n_bytes` bytes; those that are `kept` stay.

    What another process removes at the same time is gone, and a subfolder that becomes empty goes too.
    """
    found = []
    for path in folder.glob(pattern):
        with suppress(OSError):
            status = path.stat()
            found.append((status.st_mtime, status.st_size, path))
    for _, size, path in sorted(found, reverse=True):
        n_bytes -= size
        if n_bytes < 0 and path not in kept:
            path.unlink(missing_ok=True)
            if path.parent != folder:
                with suppress(OSError):
                    path.parent.rmdir()
