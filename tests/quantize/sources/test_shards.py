"""Which files make one model: any of them named, linked, missing, foreign, or lying about it."""

import os
from pathlib import Path

import pytest

from quantize.errors import CorruptFile
from quantize.file_layout import header_bytes
from quantize.ggml_types import GGMLQuantizationType as T
from quantize.source import Value, text, u32
from quantize.sources.shard_names import first_shard, shard_paths
from quantize.sources.shards import open_shards


def write(path: Path, tensor: str, keys: dict[str, Value]) -> Path:
    """Write a file with one tensor of zeros."""
    path.write_bytes(header_bytes(keys, [(tensor, T.F32, (8,), 0)]) + bytes(32))
    return path


def split(number: int, count: int = 3) -> dict[str, Value]:
    return {"split.no": u32(number), "split.count": u32(count), "split.tensors.count": u32(count)}


@pytest.fixture
def model(tmp_path: Path) -> list[Path]:
    first = {"general.architecture": text("llama"), "general.name": text("One")}
    return [
        write(tmp_path / f"m-0000{i + 1}-of-00003.gguf", f"t{i}", ({} if i else first) | split(i))
        for i in range(3)
    ]


@pytest.mark.parametrize("named", [0, 1, 2])
def test_any_shard_stands_for_all(model: list[Path], named: int) -> None:
    files = open_shards(model[named])
    assert list(files.paths) == model
    whole = files.whole
    assert [tensor.name for tensor in whole.tensors] == ["t0", "t1", "t2"]
    assert whole.get("general.name") == "One"
    assert whole.file_size == sum(path.stat().st_size for path in model)
    assert first_shard(model[named]) == model[0]


def test_shards_of_a_cache_lie_beside_the_link(model: list[Path], tmp_path: Path) -> None:
    """As in the Hugging Face cache: names in a snapshot lead to blobs that are named by their hash."""
    snapshot, blobs = tmp_path / "snapshots" / "c0ffee", tmp_path / "blobs"
    snapshot.mkdir(parents=True)
    blobs.mkdir()
    links = []
    for i, path in enumerate(model):
        path.rename(blobs / (f"{i}" * 64))
        links.append(snapshot / path.name)
        links[-1].symlink_to(os.path.relpath(blobs / (f"{i}" * 64), snapshot))
    assert list(open_shards(links[2]).paths) == links
    short = tmp_path / "mine.gguf"  # a link of one's own to one of them
    short.symlink_to(links[1])
    assert [path.name for path in open_shards(short).paths] == [path.name for path in links]
    assert first_shard(short) == links[0]


def test_a_whole_file_may_be_called_anything(tmp_path: Path) -> None:
    path = write(tmp_path / "m-00002-of-00003.gguf", "t", {})
    assert open_shards(path).paths == (path,)
    assert shard_paths(tmp_path / "m-00004-of-00003.gguf") == (tmp_path / "m-00004-of-00003.gguf",)
    assert shard_paths(tmp_path / "m-00001-of-99999.gguf") == (tmp_path / "m-00001-of-99999.gguf",)


LIES: dict[str, tuple[int, dict[str, Value], str, str]] = {
    "another part": (1, split(2), "t1", "it is not shard 2 of 3"),
    "the number is text": (1, split(1) | {"split.no": text("1")}, "t1", "it is not shard 2 of 3"),
    "the number is missing": (1, {"split.count": u32(3)}, "t1", "it is not shard 2 of 3"),
    "another count": (2, split(2, 4), "t2", "it is not shard 3 of 3"),
    "the count is text": (0, split(0) | {"split.count": text("3")}, "t0", "'3' shards"),
    "an absurd count": (0, split(0) | {"split.count": u32(65535)}, "t0", "65535 shards"),
    "a name that does not fit": (0, split(0, 2), "t0", "one of 2 files"),
    "the same tensor twice": (2, split(2), "t1", "both have the tensor 't1'"),
    "another model": (2, split(2) | {"general.name": text("Two")}, "t2", "'Two' and not 'One'"),
    "another architecture": (2, split(2) | {"general.architecture": text("bert")}, "t2", "different models"),
    "too few tensors": (0, split(0) | {"split.tensors.count": u32(9), "general.name": text("One")}, "t0", "should hold 9"),
    "a count of tensors in words": (0, split(0) | {"split.tensors.count": text("3"), "general.name": text("One")}, "t0", "should hold '3'"),
}  # fmt: skip


@pytest.mark.parametrize("case", LIES)
def test_shards_that_do_not_belong_together(model: list[Path], case: str) -> None:
    number, keys, tensor, words = LIES[case]
    write(model[number], tensor, keys)
    with pytest.raises(CorruptFile) as caught:
        open_shards(model[0])
    assert words in str(caught.value)


@pytest.mark.parametrize("gone", [0, 1, 2])
@pytest.mark.parametrize("named", [0, 1, 2])
def test_a_missing_shard_is_named(model: list[Path], gone: int, named: int) -> None:
    if gone == named:
        pytest.skip("a file that is not there has no others")
    model[gone].unlink()
    with pytest.raises(
        CorruptFile, match=rf"m-0000{gone + 1}-of-00003\.gguf is missing: it is shard {gone + 1} of 3"
    ):
        open_shards(model[named])
