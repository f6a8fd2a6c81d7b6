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


def test_a_hard_link_or_other_permissions_leave_a_file_its_host(home: Path, tmp_path: Path) -> None:
    """Both change the change time. A second process with the same model would need its memory again."""
    path = tmp_path / "m.gguf"
    path.write_bytes(b"x" * 10)
    before, changed = HostName(path, "m", "{}").socket, path.stat().st_ctime_ns
    while path.stat().st_ctime_ns == changed:  # clocks of file systems are coarse
        path.chmod(0o600)
    (tmp_path / "link").hardlink_to(path)
    assert HostName(path, "m", "{}").socket == before
