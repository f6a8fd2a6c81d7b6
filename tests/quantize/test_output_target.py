"""Where a result may go: looked at before any work, and nothing but a regular file is ever replaced."""

import os
import socket
import struct
from collections.abc import Callable
from pathlib import Path

import pytest

from quantize import Options, convert
from quantize.errors import BadTarget, CorruptFile, QuantizeError
from quantize.output_target import output_target
from quantize.recipe import choose_types
from quantize.source import ModelSource
from tests.quantize.tiny import model_of, random_weights, write_gguf
from tests.support.checkpoints import write_checkpoint


@pytest.fixture(scope="module")
def model() -> ModelSource:
    return model_of(random_weights(n_layer=1, n_ff=256, n_expert=0))


def _device(path: Path) -> None:
    try:
        os.mknod(path, 0o20666, os.makedev(1, 3))  # a /dev/null of our own
    except PermissionError:
        pytest.skip("only root may make a device")


def _socket(path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(path))


def _loop(path: Path) -> None:
    path.symlink_to(path)


NODES: dict[str, tuple[Callable[[Path], object], str]] = {
    "a FIFO": (os.mkfifo, "is a pipe"),
    "a device": (_device, "is a device"),
    "a socket": (_socket, "is a socket"),
    "a folder": (Path.mkdir, "is a folder"),
    "a dangling link": (lambda path: path.symlink_to("nowhere"), "which does not exist"),
    "a link to itself": (_loop, "symbolic links"),
    "a link to a folder": (lambda path: path.symlink_to("."), "is a folder"),
    "a link to a device": (lambda path: path.symlink_to("/dev/null"), "is a device"),
}


@pytest.mark.parametrize("case", NODES)
def test_only_a_regular_file_is_ever_replaced(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, case: str
) -> None:
    """The source is no model at all: that nobody has looked at it shows that the target was checked first."""
    monkeypatch.chdir(tmp_path)  # a socket's path must be short
    make, words = NODES[case]
    target = Path("m.gguf")
    make(target)
    before = target.lstat()
    (tmp_path / "source.gguf").write_bytes(b"not a model")
    with pytest.raises(BadTarget, match=words) as caught:
        convert(tmp_path / "source.gguf", target)
    assert caught.value.exit_code == 2
    after = target.lstat()
    assert (after.st_ino, after.st_mode, after.st_rdev) == (before.st_ino, before.st_mode, before.st_rdev)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["m.gguf", "source.gguf"]


@pytest.mark.parametrize("case", NODES)
def test_the_writer_looks_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, model: ModelSource, case: str
) -> None:
    """A plan may be old when it is carried out."""
    monkeypatch.chdir(tmp_path)
    NODES[case][0](Path("m.gguf"))
    with pytest.raises(BadTarget):
        write_gguf(model, Path("m.gguf"), choose_types(model, "Q8_0"), "Q8_0")


@pytest.mark.parametrize("suffix", [".part", ".journal"])
@pytest.mark.parametrize("case", ["a FIFO", "a device", "a folder"])
def test_something_in_the_way_of_the_unfinished_result(
    tmp_path: Path, model: ModelSource, suffix: str, case: str
) -> None:
    way = tmp_path / f"m.gguf{suffix}"
    NODES[case][0](way)
    mode = way.lstat().st_mode
    with pytest.raises(QuantizeError, match="a file of that name is needed"):
        write_gguf(model, tmp_path / "m.gguf", choose_types(model, "Q8_0"), "Q8_0")
    assert way.lstat().st_mode == mode


@pytest.mark.parametrize("suffix", [".part", ".journal"])
def test_the_source_is_never_taken_for_an_unfinished_result(
    tmp_path: Path, model: ModelSource, suffix: str
) -> None:
    """Browsers call what they download so."""
    source = tmp_path / f"m.gguf{suffix}"
    write_gguf(model, source, choose_types(model, "F16"), "F16")
    before = source.read_bytes()
    with pytest.raises(BadTarget, match=f"m.gguf{suffix} is the source itself") as caught:
        convert(source, tmp_path / "m.gguf", Options(output_type="Q8_0"))
    assert caught.value.exit_code == 2
    assert source.read_bytes() == before
    assert [path.name for path in tmp_path.iterdir()] == [source.name]


def test_an_importance_matrix_is_never_taken_for_an_unfinished_result(
    tmp_path: Path, model: ModelSource
) -> None:
    source, matrix = tmp_path / "source.gguf", tmp_path / "m.gguf.part"
    write_gguf(model, source, choose_types(model, "F16"), "F16")
    names = [
        tensor.name for tensor in model.tensors if tensor.name.startswith("blk.") and len(tensor.shape) > 1
    ]
    values = {tensor.name: tensor.shape[-1] for tensor in model.tensors if tensor.name in names}
    parts = [struct.pack("<i", len(values))]
    for name, n in values.items():
        parts += (
            struct.pack("<i", len(name)),
            name.encode(),
            struct.pack("<ii", 1, n),
            struct.pack(f"<{n}f", *[1.0] * n),
        )
    matrix.write_bytes(b"".join(parts))
    before = matrix.read_bytes()
    with pytest.raises(BadTarget, match=r"m\.gguf\.part is a file of the source itself"):
        convert(source, tmp_path / "m.gguf", Options(output_type="Q3_K_M", imatrix=matrix))
    assert matrix.read_bytes() == before


def test_a_part_of_another_program_is_kept(tmp_path: Path, model: ModelSource) -> None:
    target, part = tmp_path / "m.gguf", tmp_path / "m.gguf.part"
    part.write_bytes(b"GGUF, half a download")
    with pytest.raises(BadTarget, match=r"m\.gguf\.part was not left by an interrupted run"):
        write_gguf(model, target, choose_types(model, "Q8_0"), "Q8_0")
    assert [path.name for path in tmp_path.iterdir()] == [part.name]
    assert part.read_bytes() == b"GGUF, half a download"
    part.unlink()
    write_gguf(model, target, choose_types(model, "Q8_0"), "Q8_0")


PATHS = {
    "-": "written to stdout",
    "/dev/stdout": "written to /dev/stdout",
    "/dev/fd/1": "written to /dev/fd/1",
    "/proc/self/fd/1": "cannot be written",
    "no/such/folder/m.gguf": "does not exist: ",
    "file/m.gguf": "Not a directory",
    "m" * 250: "too long",
    "nul\0.gguf": "is not a valid file name",
    "/proc/m.gguf": "cannot be written",
}


@pytest.mark.parametrize("path", PATHS)
def test_paths_that_take_no_result(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, path: str) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "file").write_text("x")
    with pytest.raises(QuantizeError, match=PATHS[path]):
        output_target(Path(path))


@pytest.mark.slow
@pytest.mark.parametrize("content", [b"my only notes", b"", b"GGUF of before"])
def test_only_a_gguf_or_an_empty_file_is_replaced(tmp_path: Path, content: bytes) -> None:
    target = tmp_path / "notes.txt"
    target.write_bytes(content)
    source = write_checkpoint(tmp_path / "tiny")
    if content.startswith(b"my"):
        with pytest.raises(BadTarget, match="exists and is not a GGUF; remove it"):
            convert(source, target)
        assert target.read_bytes() == content
    else:
        convert(source, target)
        assert target.read_bytes()[:4] == b"GGUF"


@pytest.mark.parametrize("make", [os.link, lambda source, target: Path(target).symlink_to(source)])
def test_the_source_is_no_target_under_any_name(
    tmp_path: Path, model: ModelSource, make: Callable[..., object]
) -> None:
    source = tmp_path / "source.gguf"
    write_gguf(model, source, choose_types(model, "BF16"), "BF16")
    data = source.read_bytes()
    make(source, tmp_path / "other.gguf")
    with pytest.raises(BadTarget, match="is the source itself, under another name"):
        convert(source, tmp_path / "other.gguf", Options(output_type="Q8_0"))
    assert source.read_bytes() == data


def test_a_shard_of_the_source_is_no_target(tmp_path: Path, model: ModelSource) -> None:
    whole = tmp_path / "whole.gguf"
    write_gguf(model, whole, choose_types(model, "BF16"), "BF16")
    shards = convert(whole, tmp_path / "m.gguf", Options(split_max_size=whole.stat().st_size // 2)).paths
    with pytest.raises(BadTarget, match="is a file of the source itself"):
        convert(shards[0], shards[-1], Options(output_type="Q8_0"))
    with pytest.raises(
        BadTarget, match="is a file of the source itself"
    ):  # by the names that its shards will have
        convert(shards[0], tmp_path / "m.gguf", Options(split_max_size=whole.stat().st_size // 2))


def test_a_link_to_a_file_stays_and_its_file_is_replaced(tmp_path: Path, model: ModelSource) -> None:
    source, link, real = tmp_path / "source.gguf", tmp_path / "current.gguf", tmp_path / "disk" / "old.gguf"
    write_gguf(model, source, choose_types(model, "BF16"), "BF16")
    real.parent.mkdir()
    real.write_text("GGUF, an older one")
    link.symlink_to("disk/old.gguf")
    convert(source, link, Options(output_type="Q8_0"))
    assert link.is_symlink()
    assert real.read_bytes().startswith(b"GGUF")
    assert [path.name for path in real.parent.iterdir()] == ["old.gguf"]


def test_a_source_that_changes_while_it_is_read_gives_no_result(tmp_path: Path, model: ModelSource) -> None:
    source = tmp_path / "source.gguf"
    write_gguf(model, source, choose_types(model, "BF16"), "BF16")

    def touch(_progress: object) -> None:
        os.utime(source, ns=(0, 1))

    with pytest.raises(CorruptFile, match="changed during the read"):
        convert(source, tmp_path / "m.gguf", Options(output_type="Q8_0"), progress=touch)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["source.gguf"]
