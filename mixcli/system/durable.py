"""Flush files and folders to the disk: what is reported as done outlasts a power failure."""

import os
from pathlib import Path


def flush(path: Path) -> None:
    """Flush a file, or a folder's list of names. Raises OSError."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
