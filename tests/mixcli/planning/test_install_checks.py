"""What the doctor says of an installation, from a PATH, limits and folders that a test makes."""

import resource
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from mixcli.planning import install_checks
from mixcli.planning.install_checks import compiler, folders, gpu_driver, limits, program
from mixcli.system import nvidia
from quantize import bindings


@pytest.fixture
def bin_(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return a folder that is all of PATH."""
    place = tmp_path / "bin"
    place.mkdir()
    monkeypatch.setenv("PATH", str(place))
    return place


def script(path: Path, text: str = "") -> Path:
    path.write_text(f"#!/bin/sh\n{text}\n")
    path.chmod(0o755)
    return path


def test_the_program_in_path_is_this_one(bin_: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    absent = program()
    assert (absent.state, f". {sys.prefix}/bin/activate" in absent.words) == ("warn", True)
    script(bin_ / "mixcli")
    other = program()
    assert (other.state, f"{bin_}/mixcli, a different installation" in other.words) == ("warn", True)
    (bin_ / "mixcli").unlink()
    (bin_ / "mixcli").symlink_to(Path(sys.prefix) / "bin/mixcli")  # as pipx and uv make it
    assert program().state == "ok"


@pytest.mark.parametrize(
    ("prefix", "step"),
    [
        ("/home/a/.local/share/pipx/venvs/mixcli", "pipx ensurepath"),
        ("/home/a/.local/share/uv/tools/mixcli", "uv tool update-shell"),
        ("/home/a/mixcli", ". /home/a/mixcli/bin/activate"),
    ],
)
def test_each_installer_has_its_own_command_for_path(prefix: str, step: str) -> None:
    assert step in install_checks._path_step(Path(prefix))


def test_a_missing_compiler_is_a_fault_only_where_one_is_needed(
    bin_: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    script(bin_ / "apt-get")
    absent = compiler()
    assert (absent.state, "`sudo apt-get install build-essential`" in absent.words) == ("ok", True)
    monkeypatch.setattr(bindings, "VERSION", "0.0.1")  # another release must be compiled
    assert compiler().state == "fail"
    script(bin_ / "g++", "echo 'g++ (Debian 12.2.0) 12.2.0'")
    assert compiler().words == "g++ (Debian 12.2.0) 12.2.0"


def test_a_card_without_a_driver_is_found_on_the_bus(
    bin_: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "pynvml", None)
    monkeypatch.setattr(nvidia, "PCI", tmp_path / "pci")
    for name, vendor, kind in (("0", "0x8086", "0x030000"), ("1", "0x10de", "0x040300")):
        (tmp_path / "pci" / name).mkdir(parents=True)
        (tmp_path / "pci" / name / "vendor").write_text(f"{vendor}\n")
        (tmp_path / "pci" / name / "class").write_text(f"{kind}\n")
    assert not nvidia.has_card(), "Intel's GPU, and the sound of NVIDIA's"
    (tmp_path / "pci/1/class").write_text("0x030000\n")
    script(bin_ / "dnf")
    (found,) = gpu_driver()
    assert (found.what, found.state) == ("driver", "warn")
    assert "sudo dnf install akmod-nvidia" in found.words


@pytest.fixture
def open_files() -> Iterator[None]:
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    yield
    resource.setrlimit(resource.RLIMIT_NOFILE, before)


@pytest.mark.usefixtures("open_files")
def test_low_limits_are_named_with_their_option() -> None:
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (256, hard))  # as macOS has it
    found = limits()
    assert (found.state, "open files to 256 (`ulimit -n 1024`" in found.words) == ("warn", True)
    code = "from mixcli.planning.install_checks import limits; print(limits().words)"
    shell = f"ulimit -f 1000000; exec {sys.executable} -c '{code}'"
    said = subprocess.run(["sh", "-c", shell], capture_output=True, text=True, check=True).stdout
    assert "the size of a file to 512.0 MB (`ulimit -f`)" in said


def test_folders_that_cannot_be_written_are_named(
    home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert folders().state == "ok"
    monkeypatch.setenv("MIXCLI_HOME", "/proc/nowhere")  # nobody, not even root, can make it
    found = folders()
    assert (found.state, found.words.count("MIXCLI_HOME")) == ("fail", 3)
    assert "/proc/nowhere/data is not writable" in found.words
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("MIXCLI_HOME", str(tmp_path / "file"))
    assert f"{tmp_path}/file" in folders().words
    monkeypatch.setenv("MIXCLI_HOME", str(home))
