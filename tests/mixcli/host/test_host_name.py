"""Which host a file has: one that was replaced has another, whatever its size and its times say."""

import os
from pathlib import Path

from mixcli.host.protocol.host_name import HostName


def test_another_file_of_the_same_size_and_time_has_another_host(home: Path, tmp_path: Path) -> None:
    path, other = tmp_path / "m.gguf", tmp_path / "other"
    for file in (path, other):
        file.write_bytes(b"x" * 10)
        os.utime(file, (1, 1))
    before = HostName(path, "m", "{}").socket
    assert HostName(path, "m", "{}").socket == before
    other.replace(path)
    assert HostName(path, "m", "{}").socket != before


def test_a_file_that_was_written_over_has_another_host(home: Path, tmp_path: Path) -> None:
    path = tmp_path / "m.gguf"
    path.write_bytes(b"x" * 10)
    os.utime(path, (1, 1))
    before, changed = HostName(path, "m", "{}").socket, path.stat().st_ctime_ns
    path.write_bytes(b"y" * 10)
    while path.stat().st_ctime_ns == changed:  # clocks of file systems are coarse
        path.touch()
    os.utime(path, (1, 1))
    assert HostName(path, "m", "{}").socket != before
