"""Folders of other programs: whatever lies there, `list` goes on, takes little, and waits for nothing."""

import json
import os
import socket
import struct
import subprocess
import sys
from pathlib import Path

import pytest

from quantize.ggml_types import GGUFValueType
from quantize.source import Value, i32s, text, texts, u32
from tests.conftest import Runner
from tests.support import small_gguf
from tests.support.waiting import ends_within


@pytest.fixture
def studio(home: Path) -> Path:
    """LM Studio's folder, with one sound model in it."""
    folder = home / "lmstudio" / "someone" / "good-GGUF"
    small_gguf.write(folder / "good.Q8_0.gguf", small_gguf.gguf())
    return folder


def listed(mixcli: Runner) -> dict[str, dict[str, object]]:
    done = mixcli("list", "--json")
    assert done.returncode == 0, done.stderr
    return {row["model"]: row for row in json.loads(done.stdout)}


def claims(**keys: Value) -> bytes:
    return small_gguf.gguf(
        keys=small_gguf.metadata(**{key.replace("__", "."): value for key, value in keys.items()})
    )


CLAIMS = {
    "layers": claims(llama__block_count=u32(1 << 28)),
    "layers in words": claims(llama__block_count=text("28")),
    "heads for each layer": claims(llama__attention__head_count=i32s([4] * 100_000)),
    "a name that is a list": claims(general__name=texts(["a"] * 1000)),
    "an architecture that is a list": claims(general__architecture=texts(["llama"])),
    "parts in words": claims(split__no=text("1"), split__count=text("2")),
    "parts without end": claims(split__no=u32(0), split__count=u32(65535)),
    "a license that is a number": claims(general__license=u32(7)),
    "tokens that are numbers": claims(tokenizer__ggml__tokens=i32s([1, 2, 3])),
    "a tokenizer that is a list": claims(tokenizer__ggml__model=texts(["llama"])),
    "no width": claims(llama__embedding_length=u32(0)),
    "alignment": claims(general__alignment=u32(1)),
    "a negative count": claims(llama__attention__head_count_kv=Value(GGUFValueType.INT32, -2)),
    "keys": b"GGUF" + struct.pack("<IQQ", 3, 1, 1 << 60),
    "tensors": b"GGUF" + struct.pack("<IQQ", 3, 1 << 60, 0),
    "empty": b"",
    "pointer": b"version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 1\n",
}


MEMORY = 1 << 30  # bytes of address space: what builds what a file only claims does not get through
LIMITED = (
    "import resource, runpy, sys; "
    f"resource.setrlimit(resource.RLIMIT_AS, ({MEMORY}, {MEMORY})); "
    "sys.argv[0] = 'mixcli'; runpy.run_module('mixcli', run_name='__main__')"
)


def limited(*arguments: str) -> "subprocess.CompletedProcess[str]":
    """Run mixcli with little memory; the fixture `home` has set the environment."""
    command = [sys.executable, "-c", LIMITED, *arguments]
    environment = {**os.environ, "OPENBLAS_NUM_THREADS": "1"}
    return subprocess.run(command, capture_output=True, text=True, timeout=60, env=environment, check=False)


def test_no_claim_of_a_foreign_file_stops_the_list(home: Path, studio: Path, mixcli: Runner) -> None:
    mixcli("list")  # fills the environment's folders
    for name, data in CLAIMS.items():
        small_gguf.write(studio.parent / name.replace(" ", "-") / "m.F16.gguf", data)
    done = limited("list", "--json")
    assert done.returncode == 0, done.stderr
    rows = {row["model"]: row for row in json.loads(done.stdout)}
    assert len(rows) == len(CLAIMS) + 1
    assert rows["lmstudio/someone/good-GGUF:Q8_0"]["parameters"]


@pytest.mark.parametrize("name", CLAIMS)
def test_what_is_shown_of_such_a_file(home: Path, tmp_path: Path, name: str) -> None:
    """Everything, or a sentence; never a traceback, and never memory for a claim."""
    path = small_gguf.write(tmp_path / "m.gguf", CLAIMS[name])
    for command in (("show", "--json"), ("plan",)):
        done = limited(command[0], str(path), *command[1:])
        assert done.returncode in (0, 5), done.stderr
        assert "Traceback" not in done.stderr
        assert done.returncode == 0 or (
            done.stderr.startswith("mixcli: ") and done.stderr.count("\n") == 1
        ), done.stderr


def test_nodes_that_are_no_files_and_links_in_circles(mixcli: Runner, studio: Path, tmp_path: Path) -> None:
    os.mkfifo(studio / "pipe.gguf")
    with socket.socket(socket.AF_UNIX) as listener:
        old = Path.cwd()
        os.chdir(studio)
        try:
            listener.bind("s.gguf")
        finally:
            os.chdir(old)
    (studio / "loop.gguf").symlink_to("loop.gguf")
    (studio / "nowhere.gguf").symlink_to(tmp_path / "nowhere")
    (studio / "up").symlink_to("..")
    (studio / "folder.gguf").mkdir()
    (studio.parent / "a-file").write_text("x")
    (studio.parent / "circle").symlink_to("circle")
    (studio / os.fsdecode(b"caf\xe9.Q4_0.gguf")).write_bytes(small_gguf.gguf())
    with (studio / "sparse.F32.gguf").open("wb") as sparse:
        sparse.truncate(1 << 40)
    rows = listed(mixcli)
    assert {str(name).rpartition(":")[2] for name in rows} == {"Q8_0", "Q4_0", "F32"}
    assert "zero bytes" in str(
        next(row["problem"] for name, row in rows.items() if str(name).endswith("F32"))
    )


def test_a_folder_with_very_many_files(mixcli: Runner, studio: Path) -> None:
    for i in range(10_000):
        (studio / f"note-{i}.txt").touch()
        if i < 1000:
            (studio / f"m{i}.gguf").write_bytes(b"GGUF")
    deep = studio
    for _ in range(60):
        deep = deep / "d"
    deep.mkdir(parents=True)
    with ends_within():
        assert len(listed(mixcli)) == 1001


def test_odd_manifests_of_ollama(mixcli: Runner, home: Path, studio: Path) -> None:
    place = home / "ollama" / "manifests" / "registry.ollama.ai" / "library" / "m"
    for name, data in (
        ("deep", b"[" * 100_000),
        ("utf16", "{}".encode("utf-16")),
        ("empty", b""),
        ("list", b"[1]"),
    ):
        small_gguf.write(place / name, data)
    os.mkfifo(place / "pipe")
    small_gguf.write(
        place / "wrong",
        json.dumps({"layers": [{"mediaType": "application/vnd.ollama.image.model", "digest": 7}]}).encode(),
    )
    assert len(listed(mixcli)) == 1
