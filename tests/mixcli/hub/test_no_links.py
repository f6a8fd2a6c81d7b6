"""A cache on a file system without links holds the same files under the same names."""

import errno
import os
from pathlib import Path

import pytest

from mixcli.hub.hub_cache import CachedRepo
from tests.mixcli.hub import small


@pytest.mark.parametrize("has_hard_links", [True, False])
def test_a_pointer_without_links(home: Path, monkeypatch: pytest.MonkeyPatch, has_hard_links: bool) -> None:
    def refuse(*_: object, **_more: object) -> None:
        raise OSError(errno.EPERM, "no links")

    monkeypatch.setattr(os, "symlink", refuse)
    if not has_hard_links:
        monkeypatch.setattr(os, "link", refuse)
    cache = CachedRepo("org/tiny")
    small.write(cache.blob("a" * 40), b"bytes")
    for _ in range(2):
        pointer = cache.link("b" * 40, "sub/x.gguf", "a" * 40)
        assert (pointer.read_bytes(), pointer.is_symlink()) == (b"bytes", False)
    cache.forget(pointer)
    assert not pointer.exists()
