"""Measure random reads of a disk, which bound the speed of experts that are read from it through mmap.

The page cache must not answer, so reads go around it (O_DIRECT, macOS: F_NOCACHE), or pages are dropped first where a file system has no
such reads.
"""

import fcntl
import mmap
import os
import random
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from mixcli.system import json_cache
from mixcli.system.hardware import this_computer
from mixcli.system.mounts import mount_of
from quantize.parallel import in_parallel

PIECE = 128 << 10  # what Linux reads ahead when a page of a mapped file is missing
SECONDS = 0.4
MIN_FILE = 16 << 20  # a smaller file says little; then one of TRIAL bytes is written for the purpose
TRIAL = 64 << 20
READERS = 4  # as many threads miss pages at once


def random_reads(path: Path) -> float:
    """Return GB/s of small random reads on the disk where a file is: measured once for each disk, then remembered.

    OSError when the file cannot be read.
    """
    mount = mount_of(path)
    disk = f"{this_computer()} {path.stat().st_dev} {mount.source if mount else ''}"
    known = json_cache.load("disk").get(disk)
    if json_cache.is_number(known, above=0, below=json_cache.MAX_GBS):
        return float(known)
    rate = round(_measured(path), 4)
    json_cache.update("disk", lambda found: found.update({disk: rate}))
    return rate


def _measured(path: Path) -> float:
    if path.is_file() and path.stat().st_size >= MIN_FILE:
        return _rate(path)
    folder = path if path.is_dir() else path.parent
    with tempfile.NamedTemporaryFile(dir=folder, prefix=".mixcli-disk-") as file:
        for _ in range(TRIAL >> 20):
            file.write(random.randbytes(1 << 20))
        file.flush()
        os.fsync(file.fileno())
        return _rate(Path(file.name))


def _rate(path: Path) -> float:
    """Read for a while with several threads; each has its own descriptor and its own order."""
    n_pieces = path.stat().st_size // PIECE
    begin = time.perf_counter()
    end = begin + SECONDS

    def read(seed: int) -> int:
        order, n_bytes = random.Random(seed), 0
        file, piece_at = _around_the_cache(path)
        try:
            while time.perf_counter() < end:
                n_bytes += piece_at(order.randrange(n_pieces) * PIECE)
        finally:
            os.close(file)
        return n_bytes

    total = sum(n_bytes for _, n_bytes in in_parallel(read, range(READERS), READERS))
    return total / (time.perf_counter() - begin) / 1e9


def _around_the_cache(path: Path) -> tuple[int, Callable[[int], int]]:
    """Open a file for reads that the page cache does not answer; returns the descriptor and what reads one piece."""
    buffer = mmap.mmap(-1, PIECE)  # page-aligned, as direct reads want it
    direct = getattr(os, "O_DIRECT", 0)
    if direct:
        try:
            file = os.open(path, os.O_RDONLY | direct)
        except OSError:
            pass  # no such reads on this file system
        else:
            try:
                os.preadv(file, [buffer], 0)
                return file, lambda offset: os.preadv(file, [buffer], offset)
            except OSError:
                os.close(file)
    file = os.open(path, os.O_RDONLY)
    if hasattr(fcntl, "F_NOCACHE"):
        fcntl.fcntl(file, fcntl.F_NOCACHE, 1)

    def dropped_first(offset: int) -> int:
        if hasattr(os, "posix_fadvise"):
            os.posix_fadvise(file, offset, PIECE, os.POSIX_FADV_DONTNEED)
        return os.preadv(file, [buffer], offset)

    return file, dropped_first


__all__ = ["random_reads"]
