"""Two processes at one model, at the moments at which they meet."""

import os
import shutil
from pathlib import Path

import pytest

from mixcli.errors import MixcliError
from mixcli.store import build_folder, manifest, removal, store
from mixcli.store.import_ import import_model
from mixcli.store.manifest import Manifest, StoredFile
from mixcli.store.verification import verify
from mixcli.system import paths
from tests.support import small_gguf


def quiet(_done: float, _total: float, _stage: str = "") -> None:
    pass


def test_a_part_that_is_renamed_while_it_is_looked_at_counts_as_nothing(home: Path) -> None:
    """Who waits looks five times a second; a link to nowhere is what a file is that was there a moment ago."""
    work = paths.private(build_folder.work_folder("tiny", "Q8_0"))
    (work / "tiny-Q8_0.gguf.part").symlink_to("nowhere")
    assert build_folder._written(work) == (0, 1)


def test_a_model_that_is_removed_twice_is_missing_the_second_time(home: Path) -> None:
    folder = paths.private(paths.models_dir() / "tiny--Q8_0")
    (folder / "tiny.gguf").write_bytes(b"x")
    files = (StoredFile("tiny.gguf", 1, "0" * 64),)
    about = Manifest("tiny", "Q8_0", files, "", "MIT", "", "org/tiny", "2026-01-01T00:00:00+00:00")
    (folder / manifest.NAME).write_text(about.to_json())
    first, second = removal.plan_for("tiny"), removal.plan_for("tiny")
    killed = folder.with_name(".tiny--Q8_0.1.gone")
    shutil.copytree(folder, killed)
    removal.carry_out(first)
    with pytest.raises(MixcliError, match="tiny:Q8_0 was removed by another process meanwhile"):
        removal.carry_out(second)
    assert list(paths.models_dir().iterdir()) == [], "nor is there what a killed removal left"
    assert not store.models()


def test_the_checksum_of_a_copy_is_that_of_the_copy(
    home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The original is written to while it is imported, on a file system of its own."""

    def apart(*_: object) -> None:
        raise OSError(18, os.strerror(18))

    monkeypatch.setattr(os, "link", apart)
    source = small_gguf.write(tmp_path / "tiny.F16.gguf", small_gguf.gguf(3_000_000))

    def changing(_done: float, _total: float, stage: str = "") -> None:
        if stage.startswith("checking"):
            with source.open("r+b") as file:
                file.seek(-8, os.SEEK_END)
                file.write(b"changed!")

    model, _ = import_model(source, None, True, changing)
    assert all(one.is_sound for one in verify(model, quiet))
