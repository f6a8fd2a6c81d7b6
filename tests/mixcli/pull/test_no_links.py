"""A cache on a file system without links holds each file once, under its name, as huggingface_hub has it; and lets go of it."""

import errno
import hashlib
import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from mixcli.store.hub_cache import CachedRepo
from tests.conftest import Runner
from tests.support import small_gguf
from tests.support.checkpoints import write_checkpoint
from tests.support.hub import in_python
from tests.support.hub_server import StandIn

MODEL = small_gguf.gguf(1 << 20)
NO_LINKS = {"HF_HUB_DISABLE_SYMLINKS": "1"}  # huggingface_hub then does as where a link fails
GET = "import sys; from huggingface_hub import hf_hub_download; print(hf_hub_download(sys.argv[1], sys.argv[2]))"
COMMIT, ETAG = "b" * 40, "a" * 40


def large_files(home: Path) -> list[Path]:
    """Return what takes room in the Hub's cache."""
    found = (path for path in (home / "huggingface").rglob("*") if path.is_file() and not path.is_symlink())
    return sorted(path for path in found if path.stat().st_size > 100_000)


def test_a_pointer_without_links_is_the_file(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object, **_more: object) -> None:
        raise OSError(errno.EPERM, "no links")

    monkeypatch.setattr(os, "symlink", refuse)
    cache = CachedRepo("org/tiny")
    small_gguf.write(cache.blob(ETAG), b"bytes")
    for _ in range(2):
        pointer = cache.link(COMMIT, "sub/x.gguf", ETAG)
        assert (pointer.read_bytes(), pointer.is_symlink()) == (b"bytes", False)
        assert cache.whole(COMMIT, "sub/x.gguf", ETAG) == pointer
        assert not cache.blob(ETAG).exists()
    for _ in range(2):
        cache.forget(pointer, ETAG)
        assert not pointer.exists()


def test_a_copy_of_a_cache_without_its_links_goes_whole(home: Path) -> None:
    cache = CachedRepo("org/tiny")
    small_gguf.write(cache.blob(ETAG), b"bytes")
    pointer = cache.link(COMMIT, "x.gguf", ETAG)
    shutil.copytree(cache.folder, home / "copy")  # follows links
    shutil.rmtree(cache.folder)
    (home / "copy").rename(cache.folder)
    assert not pointer.is_symlink()
    assert cache.whole(COMMIT, "x.gguf", ETAG) == cache.blob(ETAG)
    cache.forget(pointer, ETAG)
    assert not [path for path in cache.folder.rglob("*") if path.is_file()]


def test_a_gguf_is_stored_once_and_removed(
    hub: StandIn, pull: Callable[..., object], mixcli: Runner, home: Path
) -> None:
    hub.add("org/tiny-GGUF", {"tiny.Q4_K_M.gguf": MODEL})
    done = pull("org/tiny-GGUF", **NO_LINKS)
    assert done.returncode == 0, done.stderr
    (file,) = large_files(home)
    assert (file.parent.parent.name, file.name) == ("snapshots", "tiny.Q4_K_M.gguf")
    n_fetched = len(hub.downloads())
    assert mixcli("rm", "--yes", "org/tiny-GGUF").returncode == 0
    assert large_files(home) == []
    assert len(hub.downloads()) == n_fetched


@pytest.mark.slow
def test_what_huggingface_hub_stored_without_links_is_taken_and_kept(
    hub: StandIn, pull: Callable[..., object], home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = write_checkpoint(home / "checkpoint", n_layer=1, n_shards=3)
    files = {path.name: path.read_bytes() for path in folder.iterdir()}
    hub.add("org/tiny", files, commit=COMMIT)
    first, *others = sorted(name for name in files if name.endswith(".safetensors"))
    for name, value in NO_LINKS.items():
        monkeypatch.setenv(name, value)
    theirs = Path(in_python(GET, "org/tiny", first))
    assert not theirs.is_symlink()
    hub.log.clear()
    done = pull("org/tiny", "--quant", "Q8_0")
    assert done.returncode == 0, done.stderr
    shards = [
        path for path in (home / "huggingface").rglob("*") if path.is_file() and path.suffix == ".safetensors"
    ]
    digests = {hashlib.sha256(files[name]).hexdigest() for name in files}
    blobs = [path for path in (home / "huggingface").rglob("*") if path.name in digests]
    assert (shards, blobs) == ([theirs], []), (
        "the shards that the pull brought are let go, the other program's is not"
    )
    assert sum(seen.sent for seen in hub.downloads()) == sum(len(files[name]) for name in others)
