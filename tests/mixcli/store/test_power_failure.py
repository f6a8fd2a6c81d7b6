"""What is reported as installed outlasts a power failure: a real ext4, of which the disk is copied as it is at some moment."""

import os
import shutil
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from mixcli.store import build_folder, manifest
from mixcli.store.about import About
from mixcli.store.licenses import license_of
from mixcli.store.manifest import StoredFile

LONGEST = 60.0  # seconds until ext4 has committed what was done; it does so every second here


def mounted(image: Path, folder: Path) -> bool:
    folder.mkdir(exist_ok=True)
    done = subprocess.run(["mount", "-o", "loop,commit=1", image, folder], capture_output=True, check=False)
    return done.returncode == 0


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[tuple[Path, Path]]:
    """The image of a disk, and the folder where it is mounted."""
    image, folder = tmp_path / "disk.img", tmp_path / "disk"
    with image.open("wb") as file:
        file.truncate(16 << 20)
    made = (
        shutil.which("mkfs.ext4")
        and subprocess.run(["mkfs.ext4", "-q", "-F", image], check=False).returncode == 0
    )
    if os.geteuid() or not made or not mounted(image, folder):
        pytest.skip("no file system can be made and mounted here")
    yield image, folder
    subprocess.run(["umount", folder], check=True)


def test_a_model_is_whole_as_soon_as_its_name_is_on_the_disk(
    disk: tuple[Path, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    image, folder = disk
    monkeypatch.setenv("MIXCLI_HOME", str(folder / "home"))
    with build_folder.building("tiny", "Q8_0", lambda *_: None) as (work, _):
        (work / "tiny.gguf").write_bytes(b"GGUF" * 1000)
        files = (StoredFile("tiny.gguf", 4000, "0" * 64),)
        build_folder.publish(work, About("tiny", "", license_of("MIT"), "/origin").manifest("Q8_0", files))
    cut, seen = tmp_path / "cut.img", tmp_path / "cut"
    home, end = seen / "home/data/models/tiny--Q8_0", time.monotonic() + LONGEST
    is_there = False
    while not is_there and time.monotonic() < end:
        shutil.copy(image, cut)
        assert mounted(cut, seen)
        try:
            if is_there := home.is_dir():
                about = manifest.read(home / manifest.NAME)
                assert about is not None
                assert (home / "tiny.gguf").read_bytes() == b"GGUF" * 1000
        finally:
            subprocess.run(["umount", seen], check=True)
    assert is_there
