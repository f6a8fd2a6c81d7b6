"""Limits that a system sets: memory, files, processes; a sentence and a code of the table, whatever runs out."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from mixcli.cli import _exit_code_of
from tests.conftest import _environment, mixcli_process
from tests.support import small_gguf
from tests.support.tiny_models import tiny_model


def limited(home: Path, limit: str, *args: str) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(
        ["sh", "-c", f'ulimit {limit}; exec "$0" -m mixcli "$@"', sys.executable, *args],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
        env=_environment(home),
    )


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return small_gguf.write(tmp_path / "tiny.F16.gguf", small_gguf.gguf())


@pytest.mark.parametrize(
    ("fault", "words"),
    [
        ("ImportError('No module named llama_cpp')", "No module named llama_cpp"),
        ("RuntimeError('Failed to load shared library libllama.so')", "Failed to load shared library"),
    ],
)
def test_a_library_that_cannot_be_loaded_is_a_sentence(
    home: Path, file: Path, fault: str, words: str
) -> None:
    """As with a broken installation, or too little address space (ulimit -v)."""
    code = (
        "import builtins, sys; original = builtins.__import__\n"
        "def torn(name, *rest):\n"
        f"    if name.partition('.')[0] == 'llama_cpp': raise {fault}\n"
        "    return original(name, *rest)\n"
        "builtins.__import__ = torn\n"
        "from mixcli.__main__ import main\nmain()"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, "quantize", str(file), "q8_0", "--dry-run"],
        stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False, timeout=60, env=_environment(home),
    )  # fmt: skip
    assert (done.returncode, done.stderr.count("\n")) == (1, 1), done.stderr
    assert done.stderr.startswith(f"mixcli: llama.cpp cannot be loaded ({words}")


@pytest.mark.parametrize(
    "args", [["list"], ["plan", "{}"], ["quantize", "{}", "q8_0", "--dry-run"], ["sessions", "list"], ["ps"]]
)
def test_few_descriptors_are_enough(home: Path, file: Path, args: list[str]) -> None:
    done = limited(home, "-n 64", *(arg.format(file) for arg in args))
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("n", [8, 10, 12, 14, 16, 18])
def test_a_host_without_descriptors_is_a_sentence(home: Path, tmp_path: Path, n: int) -> None:
    model = tiny_model(tmp_path / "m.gguf")
    done = limited(home, f"-n {n}", "run", "-m", str(model), "hi", "--max-tokens", "2", "--keep-alive", "0")
    assert done.stderr.count("\n") <= 2, done.stderr
    assert not any(word in done.stderr for word in ("internal error", "OSError", "Traceback", "Internal"))
    assert done.returncode != 7 or "too many open files; raise the limit" in done.stderr, done.stderr


def test_a_disk_that_is_full_for_the_stand_in_is_exit_4(home: Path, file: Path) -> None:
    done = limited(home, "-f 1", "quantize", str(file), "q8_0", "--dry-run")
    assert (done.returncode, done.stderr.count("\n")) == (4, 1), done.stderr
    assert "set TMPDIR to another folder" in done.stderr


@pytest.mark.parametrize("n_kib", [100_000, 150_000, 200_000, 300_000])
def test_little_address_space_is_a_sentence_and_never_a_wait(home: Path, file: Path, n_kib: int) -> None:
    done = limited(home, f"-v {n_kib}", "quantize", str(file), "q8_0", "--dry-run")
    assert done.returncode in (0, 4), done.stderr
    assert done.stderr.count("\n") == 1 or done.returncode == 0, done.stderr
    assert done.returncode == 0 or "ulimit -v" in done.stderr


def test_memory_that_runs_out_anywhere_is_exit_4(capsys: pytest.CaptureFixture[str]) -> None:
    assert _exit_code_of(MemoryError()) == 4
    assert capsys.readouterr().err.startswith("mixcli: not enough memory; ")


@pytest.mark.parametrize(("value", "is_on"), [("", False), ("0", False), ("off", False), ("1", True)])
def test_debugging_can_be_switched_off(home: Path, value: str, is_on: bool) -> None:
    done = mixcli_process(home, ["show", "nothing"], MIXCLI_DEBUG=value)
    assert ("Traceback" in done.stderr) is is_on


def test_a_wrong_value_of_a_variable_is_not_blamed_on_an_option(home: Path) -> None:
    args = ["run", "hi", "--endpoint", "http://127.0.0.1:9", "-m", "x"]
    done = mixcli_process(home, args, MIXCLI_OFFLINE="maybe")
    assert done.returncode == 2
    assert done.stderr.startswith("mixcli: MIXCLI_OFFLINE: 'maybe' is not a valid boolean")


@pytest.mark.parametrize("words", ["--help", "run --help", "--version", "", "list"])
def test_output_that_is_lost_is_not_exit_0(home: Path, words: str) -> None:
    done = subprocess.run(
        ["sh", "-c", f'exec "{sys.executable}" -m mixcli {words} >&-'],
        stdin=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True, check=False, timeout=60, env=_environment(home),
    )  # fmt: skip
    quiet = words == "list"  # an empty store has only a note to write
    assert done.returncode == (0 if quiet else 1)
    assert ("standard output is closed" in done.stderr) is not quiet


def test_a_file_whose_name_is_not_text_is_imported_and_used(home: Path, tmp_path: Path) -> None:
    path = small_gguf.write(tmp_path / os.fsdecode(b"caf\xe9\n.F16.gguf"), small_gguf.gguf())
    done = mixcli_process(home, ["import", os.fsdecode(path)])
    assert done.returncode == 0, done.stderr
    (model,) = json.loads(mixcli_process(home, ["list", "--json"]).stdout)
    assert "damaged" not in model
    assert mixcli_process(home, ["verify", model["model"]]).returncode == 0
    path.unlink()
    lost = mixcli_process(home, ["show", model["model"]])
    assert (lost.returncode, "Traceback" in lost.stderr) == (5, False), lost.stderr


@pytest.mark.parametrize("name", ["a\nb\x1b[31mc.txt", "x" * 4096, "caf\udce9", "a\u202etxt"])
@pytest.mark.parametrize("args", [["batch"], ["run", "-f"], ["convert"], ["import"]])
def test_a_missing_file_of_any_name_is_one_short_line(
    home: Path, tmp_path: Path, name: str, args: list[str]
) -> None:
    done = mixcli_process(home, [*args, os.fspath(tmp_path / name)])
    assert (done.returncode, done.stderr.count("\n")) == (2, 1), done.stderr
    assert "no such file" in done.stderr or "name too long" in done.stderr
    assert len(done.stderr) < 600
    assert not {"\x1b", "\u202e"} & set(done.stderr)


@pytest.mark.parametrize("name", ["a\nb", "-x", ".x", "a\x1b", "a/b", "auto"])
def test_a_profile_needs_a_name_that_can_be_typed(home: Path, name: str) -> None:
    done = mixcli_process(home, ["profiles", "new", "--extends", "cpu", "--", name])
    assert (done.returncode, done.stderr.count("\n")) == (2, 1), done.stderr
    assert "is not a valid profile name" in done.stderr
