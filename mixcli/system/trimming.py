"""Keep a folder of the cache below a size: the files that were used longest ago are removed."""

from pathlib import Path


def trim(folder: Path, pattern: str, n_bytes: int, newest: Path) -> None:
    """Remove files of a pattern, the longest unused first, until the rest has at most `n_bytes` bytes; `newest` stays."""
    found = sorted(folder.glob(pattern), key=lambda path: path.stat().st_mtime, reverse=True)
    for path in found:
        n_bytes -= path.stat().st_size
        if n_bytes < 0 and path != newest:
            path.unlink(missing_ok=True)
