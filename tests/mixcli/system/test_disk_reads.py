"""Small random reads are really measured: in bounded time, around the page cache, once for each disk."""

import json
import os
from pathlib import Path

import pytest

from mixcli.system import disk_reads
from tests.support.waiting import ends_within


def test_a_rate_is_measured_once_and_remembered(home: Path, tmp_path: Path) -> None:
    file = tmp_path / "model.gguf"
    file.write_bytes(os.urandom(1 << 20) * 32)
    with ends_within():
        rate = disk_reads.random_reads(file)
    assert 0 < rate < 100
    known = json.loads((home / "cache" / "disk.json").read_text())
    assert list(known.values()) == [rate]
    known = dict.fromkeys(known, 0.125)
    (home / "cache" / "disk.json").write_text(json.dumps(known))
    assert disk_reads.random_reads(file) == 0.125


def test_a_small_file_gets_a_larger_one_beside_it(home: Path, tmp_path: Path) -> None:
    file = tmp_path / "small.gguf"
    file.write_bytes(b"GGUF")
    assert disk_reads.random_reads(file) > 0
    assert list(tmp_path.glob(".mixcli-disk-*")) == []


def test_reads_leave_nothing_in_the_page_cache(home: Path, tmp_path: Path) -> None:
    """What is read around the cache stays out of it: a second descriptor's mincore would say so; here, O_DIRECT itself does."""
    file = tmp_path / "model.gguf"
    file.write_bytes(os.urandom(1 << 20) * 32)
    descriptor, read = disk_reads._around_the_cache(file)
    try:
        import fcntl

        assert read(disk_reads.PIECE) == disk_reads.PIECE
        if not fcntl.fcntl(descriptor, fcntl.F_GETFL) & os.O_DIRECT:
            pytest.skip("this file system has no direct reads; pages are dropped before each read instead")
    finally:
        os.close(descriptor)


def test_a_damaged_memory_is_measured_anew(home: Path, tmp_path: Path) -> None:
    (home / "cache").mkdir(parents=True)
    (home / "cache" / "disk.json").write_text("[1]")
    assert disk_reads.random_reads(tmp_path) > 0
