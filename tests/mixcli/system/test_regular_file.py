"""Files of mixcli whose place something else has taken, such as a FIFO without a writer: they are absent or refused, and never waited for."""

import os
import threading
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import pytest

from mixcli.batch.calibration import read_calibration
from mixcli.errors import MixcliError
from mixcli.insight import bench_record
from mixcli.insight.baseline_file import BaselineReader
from mixcli.serve.keys import KeyRing
from mixcli.store import default_model, manifest
from mixcli.system import json_cache, paths
from mixcli.system.regular_file import open_regular, read_regular

READERS: dict[str, tuple[str, Callable[[Path], object]]] = {
    "default model": ("config/default-model", lambda _: default_model.get()),
    "manifest": ("data/models/a--Q8_0/manifest.json", manifest.read),
    "cache": ("cache/x.json", lambda _: json_cache.load("x")),
    "runs of bench": ("data/bench/2026-a.json", lambda _: bench_record.earlier("last", "a")),
    "calibration": ("data/c.json", read_calibration),
    "baseline": ("cache/b.baseline", BaselineReader),
    "API keys": ("config/keys", lambda path: KeyRing(None, path, lambda _: None)),
}


@pytest.mark.parametrize("name", READERS)
def test_a_pipe_in_its_place_is_not_waited_for(home: Path, name: str) -> None:
    where, read = READERS[name]
    path = home / where
    path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    os.mkfifo(path, 0o600)

    def read_it() -> None:
        with suppress(MixcliError, OSError):
            read(path)

    reader = threading.Thread(target=read_it, daemon=True)
    reader.start()
    reader.join(60)
    assert not reader.is_alive()


def test_keys_that_become_a_pipe_stay_as_they_were(tmp_path: Path) -> None:
    path, said = tmp_path / "keys", list[str]()
    path.write_text("k" * 20 + "\n")
    path.chmod(0o600)
    ring = KeyRing(None, path, said.append)
    path.unlink()
    os.mkfifo(path, 0o600)
    known = list[bool]()
    reader = threading.Thread(target=lambda: known.append(ring.knows("k" * 20)), daemon=True)
    reader.start()
    reader.join(60)
    assert known == [True]
    assert said == [f"{path} cannot be read: not a regular file; the API keys are unchanged"]


@pytest.mark.parametrize("kind", ["folder", "fifo", "device", "missing", "loop"])
def test_only_a_regular_file_is_read(tmp_path: Path, kind: str) -> None:
    path = tmp_path / "x"
    makers: dict[str, Callable[[], object]] = {
        "folder": path.mkdir,
        "fifo": lambda: os.mkfifo(path),
        "device": lambda: path.symlink_to("/dev/zero"),
        "missing": lambda: None,
        "loop": lambda: path.symlink_to("x"),
    }
    makers[kind]()
    before = len(list(Path("/dev/fd").iterdir()))
    with pytest.raises(OSError, match=r".") as raised:
        open_regular(path)
    assert raised.value.filename == os.fspath(path)
    assert len(list(Path("/dev/fd").iterdir())) == before


def test_a_file_is_read_up_to_the_limit(home: Path) -> None:
    path = paths.cache_dir() / "x"
    path.write_bytes(b"12345")
    assert (read_regular(path, 3), read_regular(path, 9)) == (b"123", b"12345")
