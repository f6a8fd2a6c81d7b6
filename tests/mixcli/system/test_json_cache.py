"""What is remembered between runs: whole files, nothing lost between two writers, and anything unreadable is absent."""

import errno
import fcntl
import json
import os
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from mixcli.system import json_cache, paths
from mixcli.system.locks import exclusive


@pytest.mark.parametrize(
    "content",
    [b"", b"{", b"[1]", b"\xff", b"[" * 100_000, b'{"gbs": "fast"}', b'{"gbs": true}', b'{"gbs": 1e308}'],
)
def test_what_cannot_be_read_is_absent(home: Path, content: bytes) -> None:
    from mixcli.system.hardware import known_bandwidth

    (paths.cache_dir() / "bandwidth.json").write_bytes(content)
    assert known_bandwidth() is None


@pytest.mark.parametrize("value", [10**400, -(10**400), float("inf"), float("nan"), 1e300, True, "1", None])
def test_what_was_not_measured_is_no_number(value: object) -> None:
    assert not json_cache.is_number(value)
    assert json_cache.is_number(0.5, above=0)


def test_a_pipe_of_that_name_is_absent_and_not_waited_for(home: Path) -> None:
    os.mkfifo(paths.cache_dir() / "x.json")
    assert json_cache.load("x") == {}
    assert json_cache.update("x", lambda known: known.update(a=1))
    assert json_cache.load("x") == {"a": 1}


def test_two_writers_lose_nothing_of_each_other(home: Path) -> None:
    with ThreadPoolExecutor(8) as pool:
        assert all(
            pool.map(lambda i: json_cache.update("x", lambda known: known.update({str(i): i})), range(64))
        )
    assert json_cache.load("x") == {str(i): i for i in range(64)}
    assert not list(paths.cache_dir().glob(".*.part"))


def test_a_planted_link_is_replaced_and_not_followed(home: Path, tmp_path: Path) -> None:
    victim = tmp_path / "victim"
    victim.write_text("{}")
    (paths.cache_dir() / "x.json").symlink_to(victim)
    assert json_cache.update("x", lambda known: known.update(a=1))
    assert (victim.read_text(), json_cache.load("x")) == ("{}", {"a": 1})


@pytest.mark.parametrize("code", [errno.ENOLCK, errno.EOPNOTSUPP, errno.ENOSYS])
def test_a_file_system_without_locks(home: Path, monkeypatch: pytest.MonkeyPatch, code: int) -> None:
    def refuse(_file: int, _how: int) -> None:
        raise OSError(code, "no locks")

    monkeypatch.setattr(fcntl, "flock", refuse)
    with exclusive(paths.cache_dir() / "x.lock"):
        pass
    assert json_cache.update("x", lambda known: known.update(a=1))
    assert json.loads((paths.cache_dir() / "x.json").read_text()) == {"a": 1}


def test_of_several_new_files_one_is_written(tmp_path: Path) -> None:
    def write(i: int) -> int:
        try:
            json_cache.new_text(tmp_path / "x.toml", str(i) * 100_000)
        except FileExistsError:
            return -1
        return i

    with ThreadPoolExecutor(8) as pool:
        (winner,) = (i for i in pool.map(write, range(8)) if i >= 0)
    assert (tmp_path / "x.toml").read_text() == str(winner) * 100_000
    assert [path.name for path in tmp_path.iterdir()] == ["x.toml"]
