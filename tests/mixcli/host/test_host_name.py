"""Which host a file has: one that was replaced has another, whatever its size and its times say."""

import os
from pathlib import Path

from mixcli.host.kv_location import file_identity
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


def test_another_shard_has_another_host_and_a_missing_one_none_of_its_own(home: Path, tmp_path: Path) -> None:
    first, second = (tmp_path / f"m-0000{number}-of-00002.gguf" for number in (1, 2))
    first.write_bytes(b"x" * 10)
    alone = HostName(first, "m", "{}").socket
    second.write_bytes(b"y" * 10)
    whole, identity = HostName(first, "m", "{}").socket, file_identity(first)
    assert whole != alone
    assert HostName(first, "m", "{}").socket == whole
    second.with_suffix(".new").write_bytes(b"z" * 10)
    second.with_suffix(".new").replace(second)
    assert HostName(first, "m", "{}").socket != whole
    assert file_identity(first) != identity
