"""The file of the default model: what cannot be read, or holds something else, is not taken for none."""

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from mixcli.errors import MixcliError, UnreadableFile, UsageError
from mixcli.store import default_model
from mixcli.store.store import find
from tests.conftest import Runner


@pytest.fixture
def place(home: Path) -> Path:
    path = home / "config" / "default-model"
    path.parent.mkdir(parents=True)
    return path


def test_none_was_chosen(home: Path, place: Path) -> None:
    assert default_model.get() is None
    place.write_text("\n")
    assert default_model.get() is None
    default_model.set_to("demo:Q4_K_M")
    assert default_model.get() == "demo:Q4_K_M"


@pytest.mark.parametrize("raw", [b"\xff\xfe", b"a\0b", b"demo\ndemo:Q8_0\n", b"x" * 5000, b"\x1b[31mdemo"])
def test_what_is_not_a_name_is_told(place: Path, raw: bytes) -> None:
    place.write_bytes(raw)
    for read in (default_model.get, lambda: find(None)):
        with pytest.raises(
            UsageError, match=r"default-model does not hold the name of a model; set it again"
        ):
            read()
    default_model.forget("demo")
    assert place.read_bytes() == raw


@pytest.mark.parametrize("make", [Path.mkdir, os.mkfifo, lambda path: path.symlink_to(path)])
def test_what_cannot_be_read_is_told(place: Path, make: Callable[[Path], object]) -> None:
    make(place)
    with pytest.raises(
        UnreadableFile, match=r"cannot be read from .*default-model: .*`mixcli default --clear`"
    ):
        default_model.get()
    default_model.forget("demo")
    assert os.path.lexists(place)


@pytest.mark.parametrize("label", ["/a/b\n.gguf", "/a/\udcff.gguf", "/a/\x1b[31m.gguf", "x" * 5000])
def test_a_name_that_could_not_be_read_again_is_refused(place: Path, label: str) -> None:
    with pytest.raises(MixcliError, match="cannot be the default model"):
        default_model.set_to(label)
    assert not place.exists()


def test_the_command_names_the_file(mixcli: Runner, place: Path) -> None:
    place.mkdir()
    done = mixcli("default")
    assert (done.returncode, "no default model is set" in done.stderr) == (1, False)
    assert f"the default model cannot be read from {place}" in done.stderr
