"""Where things are kept, and who may look."""

import os
from pathlib import Path

import pytest

from mixcli.system import paths


@pytest.fixture
def no_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.delenv("MIXCLI_HOME", raising=False)
    for name in ("CACHE", "CONFIG", "DATA"):
        monkeypatch.setenv(f"XDG_{name}_HOME", str(tmp_path / name.lower()))
    monkeypatch.delenv("XDG_RUNTIME_DIR", raising=False)
    return tmp_path


def test_the_platforms_own_places_are_used(no_home: Path) -> None:
    if os.uname().sysname == "Linux":
        assert paths.data_dir() == no_home / "data" / "mixcli"
        assert paths.cache_dir() == no_home / "cache" / "mixcli"
    assert paths.models_dir().stat().st_mode & 0o777 == 0o700


def test_the_sessions_runtime_folder_is_used_where_there_is_one(
    no_home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    session = Path("/tmp") / f"mixcli-test-{os.getpid()}"
    session.mkdir(mode=0o700)
    try:
        monkeypatch.setenv("XDG_RUNTIME_DIR", str(session))
        assert paths.runtime_dir() == session / "mixcli"
        (session / "mixcli").rmdir()
    finally:
        session.rmdir()


def test_a_deep_folder_gives_way_to_a_short_private_one(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MIXCLI_HOME", str(home / ("deep" * 20)))
    place = paths.runtime_dir()
    assert len(os.fsencode(place)) <= paths.MAX_RUNTIME_PATH
    assert place == paths.runtime_dir()
    assert place.stat().st_mode & 0o777 == 0o700
    place.rmdir()


def test_a_planted_link_is_refused(home: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    cache = paths.cache_dir()
    if len(os.fsencode(cache / "run")) > paths.MAX_RUNTIME_PATH:
        monkeypatch.setattr(paths, "MAX_RUNTIME_PATH", 500)
    (cache / "run").symlink_to(elsewhere)
    with pytest.raises(PermissionError, match="belongs to another user"):
        paths.runtime_dir()
    (cache / "run").unlink()


def test_an_open_folder_is_closed(home: Path) -> None:
    place = paths.runtime_dir()
    place.chmod(0o755)
    assert paths.runtime_dir().stat().st_mode & 0o777 == 0o700
