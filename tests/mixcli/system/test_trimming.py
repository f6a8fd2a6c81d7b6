"""A folder of the cache is kept below a size: the longest unused files go, what is in use stays, and nothing else is touched."""

import os
from pathlib import Path

from mixcli.system.trimming import trim


def put(path: Path, size: int, age: int) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(bytes(size))
    os.utime(path, (1e9 - age, 1e9 - age))
    return path


def test_the_longest_unused_go_with_their_folders(tmp_path: Path) -> None:
    new, kept, old = (put(tmp_path / name / "x.part", 10, age) for age, name in enumerate("abc"))
    beside = put(tmp_path / "recipe.json", 100, 9)
    (tmp_path / "d").mkdir()
    (tmp_path / "d/gone.part").symlink_to("nowhere")  # as one that another process removes meanwhile
    trim(tmp_path, "*/*.*", 15, kept)
    assert (new.exists(), kept.exists(), old.parent.exists(), beside.exists()) == (True, True, False, True)
