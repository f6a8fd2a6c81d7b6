"""Weights are compared by content: when a file changed and where it is say nothing."""

import os
import shutil
from pathlib import Path

import pytest

from mixcli.planning.launch import identity
from mixcli.planning.load_options import LoadOptions
from mixcli.store import weights
from mixcli.store.import_ import import_model
from mixcli.store.store import StoredModel
from mixcli.store.weights import weights_of
from profiles.request import PlanRequest
from tests.support.small_gguf import gguf
from tests.support.small_gguf import write as write_gguf

MIB = 1 << 20


@pytest.fixture(autouse=True)
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    """Only samples are read of what lies behind the first 64 KiB."""
    monkeypatch.setattr(weights, "FIRST", 64 << 10)


def write(folder: Path, *, at: int = 0, value: bytes = b"") -> StoredModel:
    """Write a model of two shards, of which the second one has other bytes at a place."""
    folder.mkdir()
    for number in (1, 2):
        data = bytearray(bytes(range(256)) * (MIB // 256))
        if number == 2:
            data[at : at + len(value)] = value
        (folder / f"m-0000{number}-of-00002.gguf").write_bytes(data)
    return StoredModel(folder / "m-00001-of-00002.gguf")


def test_copies_are_the_same_whenever_they_were_made(home: Path, tmp_path: Path) -> None:
    model = write(tmp_path / "a")
    copy = StoredModel(shutil.copytree(tmp_path / "a", tmp_path / "b") / model.path.name)
    os.utime(copy.path, ns=(1, 1))
    assert weights_of(model).differences(weights_of(copy)) == []


@pytest.mark.parametrize("at", [0, 100, MIB - 4096, MIB - 4])
def test_a_shard_with_other_bytes_is_named(tmp_path: Path, at: int) -> None:
    found = weights_of(write(tmp_path / "a")).differences(
        weights_of(write(tmp_path / "b", at=at, value=b"xyz!"))
    )
    assert found == ["m-00002-of-00002.gguf has the same size but different contents"]


def test_other_weights_throughout_are_seen_in_the_samples(tmp_path: Path) -> None:
    """What training changes are nearly all weights; not one byte of many."""
    other = write(tmp_path / "b", at=64 << 10, value=os.urandom(MIB - (128 << 10)))
    assert weights_of(write(tmp_path / "a")).differences(weights_of(other))


def test_another_size_and_another_number_of_files_are_told(tmp_path: Path) -> None:
    model, longer = write(tmp_path / "a"), write(tmp_path / "b")
    with longer.path.open("ab") as file:
        file.write(b"more")
    (said,) = weights_of(model).differences(weights_of(longer))
    assert said == f"m-00001-of-00002.gguf is {MIB + 4:,} bytes long instead of {MIB:,}"
    longer.path.with_name("m-00002-of-00002.gguf").unlink()
    assert weights_of(model).differences(weights_of(longer)) == ["1 file instead of 2"]


def test_a_touched_file_keeps_its_identity(home: Path, tmp_path: Path) -> None:
    """A batch that is resumed after a copy or a touch finds its results."""
    path, options = write_gguf(tmp_path / "m.gguf", gguf()), LoadOptions(PlanRequest())
    before = identity(str(path), options)
    os.utime(path, ns=(1, 1))
    assert identity(str(path), options) == before


def test_a_replaced_file_of_an_imported_model_is_another_identity(home: Path, tmp_path: Path) -> None:
    """Fine-tuned once more, it has the same size; the store keeps the checksum of the import."""
    path, options = write_gguf(tmp_path / "m.F16.gguf", gguf(seed=1)), LoadOptions(PlanRequest())
    label = import_model(path, None, False, lambda *_: None)[0].label
    before, n_bytes = identity(label, options), path.stat().st_size
    write_gguf(path, gguf(seed=2))
    assert path.stat().st_size == n_bytes
    assert identity(label, options) != before


def test_a_named_type_of_the_cache_is_another_identity(home: Path, tmp_path: Path) -> None:
    """A batch with --kv q4_0 does not take the results of one without for its own."""
    path = write_gguf(tmp_path / "m.gguf", gguf())
    found = {kv: identity(str(path), LoadOptions(PlanRequest(kv=kv))) for kv in (None, "auto", "f16", "q4_0")}
    assert found["auto"] == found["f16"] == found[None] != found["q4_0"]
