"""Writes that are killed or stopped, and journals that are damaged: nothing is lost, nothing is left behind."""

import os
import random
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import pytest

from quantize import Options, Progress, convert
from quantize.errors import InUse
from quantize.ggml_types import GGMLQuantizationType as T
from quantize.recipe import choose_types
from quantize.source import ModelSource
from quantize.write_journal import WriteJournal
from tests.quantize.tiny import model_of, random_weights, write_gguf

# Converts, and appends one byte to a file for each slab that is really quantized.
CHILD = """
import os, sys
from pathlib import Path
from quantize import Options, convert, QuantizeError
from quantize.encoder import Encoder
source, target, count = sys.argv[1:4]
log = os.open(count, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
encode = Encoder.__call__
def counted(self, slab):
    os.write(log, b".")
    return encode(self, slab)
Encoder.__call__ = counted
if len(sys.argv) > 4:
    import resource
    resource.setrlimit(resource.RLIMIT_FSIZE, (int(sys.argv[4]), resource.RLIM_INFINITY))
print("ready", flush=True)
try:
    print(convert(Path(source), Path(target), Options(output_type="Q4_K_M", n_threads=2)).n_bytes_resumed)
except QuantizeError as error:
    print(error, file=sys.stderr)
    sys.exit(error.exit_code)
"""


def child(*arguments: object) -> subprocess.Popen[str]:
    process = subprocess.Popen(
        [sys.executable, "-c", CHILD, *map(str, arguments)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.stdout and process.stdout.readline() == "ready\n"
    return process


@pytest.fixture(scope="module")
def bf16(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("source") / "bf16.gguf"
    model = model_of(random_weights(n_layer=3, n_ff=1024))
    write_gguf(model, path, choose_types(model, "BF16"), "BF16")
    return path


@pytest.fixture(scope="module")
def clean(bf16: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[bytes, int, float]:
    """Give the bytes of a run that nothing disturbed, its slabs, and its seconds."""
    folder = tmp_path_factory.mktemp("clean")
    process = child(bf16, folder / "m.gguf", folder / "count")
    started = time.monotonic()
    assert process.communicate() and process.returncode == 0
    return (folder / "m.gguf").read_bytes(), (folder / "count").stat().st_size, time.monotonic() - started


@pytest.mark.slow
def test_kill_at_twenty_random_moments(bf16: Path, clean, tmp_path: Path) -> None:
    wanted, n_slabs, seconds = clean
    target, count = tmp_path / "m.gguf", tmp_path / "count"
    rng = random.Random(5)
    n_killed = n_finished = 0
    while n_killed < 20:
        process = child(bf16, target, count)
        try:
            process.communicate(timeout=rng.uniform(0, seconds / 6))
        except subprocess.TimeoutExpired:
            process.send_signal(signal.SIGKILL)
            process.communicate()
            n_killed += 1
        if (
            target.exists() and not target.with_name("m.gguf.journal").exists()
        ):  # it came to its end before the kill
            assert target.read_bytes() == wanted
            target.unlink()
            n_finished += 1
    process = child(bf16, target, count)
    assert process.communicate()[1] == "" and process.returncode == 0
    assert target.read_bytes() == wanted
    assert count.stat().st_size < 1.3 * n_slabs * (n_finished + 1)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["count", "m.gguf"]


@pytest.mark.slow
def test_a_full_disk_is_said_and_the_next_run_goes_on(bf16: Path, clean, tmp_path: Path) -> None:
    wanted, n_slabs, _ = clean
    target, count = tmp_path / "m.gguf", tmp_path / "count"
    process = child(bf16, target, count, len(wanted) // 2)
    _, message = process.communicate()
    assert process.returncode == 4
    assert " is full; " in message and "rerun the command" in message
    assert not target.exists()
    n_first = count.stat().st_size
    assert 0.3 * n_slabs < n_first < 0.7 * n_slabs
    process = child(bf16, target, count)
    out, _ = process.communicate()
    assert int(out) > len(wanted) // 3
    assert target.read_bytes() == wanted
    assert count.stat().st_size < 1.1 * n_slabs


def half_written(model: ModelSource, target: Path, types: dict[str, T]) -> None:
    """Stop a write in the middle, as Ctrl-C does."""

    def stop(at: Progress) -> None:
        if at.done > at.total // 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write_gguf(model, target, types, "Q8_0", progress=stop)


@pytest.fixture
def model() -> ModelSource:
    return model_of(random_weights(n_ff=256))


@pytest.fixture
def whole(model: ModelSource, tmp_path_factory: pytest.TempPathFactory) -> bytes:
    path = tmp_path_factory.mktemp("whole") / "m.gguf"
    write_gguf(model, path, choose_types(model, "Q8_0"), "Q8_0")
    return path.read_bytes()


def test_damaged_slabs_and_a_torn_journal_are_noticed(
    model: ModelSource, whole: bytes, tmp_path: Path
) -> None:
    target, types = tmp_path / "m.gguf", choose_types(model, "Q8_0")
    half_written(model, target, types)
    part, journal = tmp_path / "m.gguf.part", tmp_path / "m.gguf.journal"
    data = bytearray(part.read_bytes())
    data[50_000] ^= 0xFF
    part.write_bytes(data)
    with journal.open("ab") as file:
        file.write(b"0000")
    report = write_gguf(model, target, types, "Q8_0")
    assert target.read_bytes() == whole
    assert len(whole) // 3 < report.n_bytes_resumed < len(whole)
    assert not report.started_over
    assert [path.name for path in tmp_path.iterdir()] == ["m.gguf"]


def test_other_source_or_options_start_over_and_say_so(
    model: ModelSource, whole: bytes, tmp_path: Path
) -> None:
    target, types = tmp_path / "m.gguf", choose_types(model, "Q8_0")
    half_written(replace(model, fingerprint="another"), target, types)
    stages: list[Progress] = []
    report = write_gguf(model, target, types, "Q8_0", progress=stages.append)
    assert report.started_over and report.n_bytes_resumed == 0
    assert stages[0].stage.startswith("starting over")
    assert target.read_bytes() == whole

    half_written(model, target, types)
    report = write_gguf(
        model, target, choose_types(model, "Q4_K_M"), "Q4_K_M", split_max_size=len(whole) // 3
    )
    assert report.started_over
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted(
        {"m.gguf", *(p.name for p in report.paths)}
    )


def test_killed_between_the_rename_and_the_end(model: ModelSource, whole: bytes, tmp_path: Path) -> None:
    target, types = tmp_path / "m.gguf", choose_types(model, "Q8_0")
    journal = tmp_path / "m.gguf.journal"
    kept = b""

    def keep(at: Progress) -> None:
        nonlocal kept
        kept = journal.read_bytes()

    write_gguf(model, target, types, "Q8_0", progress=keep)
    journal.write_bytes(kept)
    report = write_gguf(model, target, types, "Q8_0")
    assert report.n_bytes_resumed > 0.99 * len(whole) - 10_000
    assert target.read_bytes() == whole
    assert [path.name for path in tmp_path.iterdir()] == ["m.gguf"]


def test_two_at_once(model: ModelSource, tmp_path: Path) -> None:
    target, types = tmp_path / "m.gguf", choose_types(model, "Q8_0")
    with (
        WriteJournal(tmp_path / "m.gguf.journal", "mine", ()),
        pytest.raises(InUse, match="in use by another process"),
    ):
        write_gguf(model, target, types, "Q8_0")
    write_gguf(model, target, types, "Q8_0")


def test_a_planted_journal_removes_nothing_elsewhere(model: ModelSource, tmp_path: Path) -> None:
    outside = tmp_path / "precious.part"
    outside.write_text("x")
    folder = tmp_path / "out"
    folder.mkdir()
    (folder / "keep.txt").write_text("x")
    (folder / "m.gguf.journal").write_text('{"identity": "old", "parts": ["../precious.part", "keep.txt"]}\n')
    (folder / "m.gguf.part").symlink_to(outside)
    write_gguf(model, folder / "m.gguf", choose_types(model, "Q8_0"), "Q8_0")
    assert outside.read_text() == "x"
    assert sorted(path.name for path in folder.iterdir()) == ["keep.txt", "m.gguf"]


@pytest.mark.parametrize("most", [1, 7, 1 << 10])
def test_reads_and_writes_that_are_short_are_gone_on_with(
    files_of: tuple[ModelSource, bytes], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, most: int
) -> None:
    """A network file system may give and take less than it is asked for; a resumed write must not call that damage."""
    model, whole = files_of
    target = tmp_path / "m.gguf"
    seen: list[Progress] = []

    def stop(at: Progress) -> None:
        seen.append(at)
        if at.done > at.total // 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write_gguf(model, target, choose_types(model, "Q8_0"), "Q8_0", progress=stop)
    pread, write = os.pread, os.write
    limit = max(most, 64)
    monkeypatch.setattr("os.pread", lambda fd, n, at: pread(fd, min(n, limit * 64), at))
    monkeypatch.setattr("os.write", lambda fd, data: write(fd, data[:most]))
    report = write_gguf(model, target, choose_types(model, "Q8_0"), "Q8_0")
    assert report.n_bytes_resumed > 0
    assert target.read_bytes() == whole
    assert [path.name for path in tmp_path.iterdir()] == ["m.gguf"]


@pytest.fixture(scope="module")
def files_of(tmp_path_factory: pytest.TempPathFactory) -> tuple[ModelSource, bytes]:
    model = model_of(random_weights(n_layer=1, n_ff=256))
    path = tmp_path_factory.mktemp("whole") / "m.gguf"
    write_gguf(model, path, choose_types(model, "Q8_0"), "Q8_0")
    return model, path.read_bytes()


@pytest.mark.parametrize(
    "cut", ["in the head", "in a line", "noise", "another journal", "signs", "nothing", "a huge number"]
)
def test_a_journal_that_is_not_whole_costs_at_most_the_work(
    files_of: tuple[ModelSource, bytes], tmp_path: Path, cut: str
) -> None:
    model, whole = files_of
    target, journal = tmp_path / "m.gguf", tmp_path / "m.gguf.journal"

    def stop(at: Progress) -> None:
        if at.done > at.total // 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write_gguf(model, target, choose_types(model, "Q8_0"), "Q8_0", progress=stop)
    data = journal.read_bytes()
    head, lines = data.split(b"\n", 1)
    journal.write_bytes(
        {
            "in the head": data[:20],
            "in a line": data[:-5],
            "noise": head + b"\n" + bytes(range(256)) * 8,
            "another journal": b'{"identity": "x", "parts": ["m.gguf.part"]}\n' + lines,
            "signs": head + b"\n" + b"-0000001 +0000002\n 0000003  0000004\n" + lines,
            "nothing": b"",
            "a huge number": head + b"\nffffffff 00000000\n" + lines,
        }[cut]
    )
    write_gguf(model, target, choose_types(model, "Q8_0"), "Q8_0")
    assert target.read_bytes() == whole
    assert [path.name for path in tmp_path.iterdir()] == ["m.gguf"]


def test_a_source_that_was_replaced_between_two_runs_is_not_mixed(tmp_path: Path) -> None:
    """Even when its size and its time are put back as they were."""
    source, target = tmp_path / "source.gguf", tmp_path / "m.gguf"
    models = [model_of(random_weights(n_layer=1, n_ff=256, seed=seed)) for seed in (1, 2)]
    write_gguf(models[0], source, choose_types(models[0], "BF16"), "BF16")
    before = source.stat()

    def stop(at: Progress) -> None:
        if at.done > at.total // 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        convert(source, target, Options(output_type="Q8_0"), progress=stop)
    write_gguf(models[1], tmp_path / "other.gguf", choose_types(models[1], "BF16"), "BF16")
    source.write_bytes((tmp_path / "other.gguf").read_bytes())
    os.utime(source, ns=(before.st_atime_ns, before.st_mtime_ns))
    assert source.stat().st_size == before.st_size
    report = convert(source, target, Options(output_type="Q8_0"))
    assert report.started_over
    convert(tmp_path / "other.gguf", tmp_path / "clean.gguf", Options(output_type="Q8_0"))
    assert target.read_bytes() == (tmp_path / "clean.gguf").read_bytes()
