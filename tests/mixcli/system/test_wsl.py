"""WSL, as its files show it: recorded under a folder that takes the place of /proc."""

import os
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from mixcli.planning import install_checks
from mixcli.store.import_ import import_model
from mixcli.system import hardware, mounts, paths, wsl
from mixcli.system.device_facts import DeviceFacts
from profiles.errors import DoesNotFit
from profiles.machine import Machine
from profiles.planner import PlanRequest, plan
from tests.profiles.test_planner import MIXTRAL
from tests.support import small_gguf

GIB = 1 << 30
WSL2 = "6.6.87.2-microsoft-standard-WSL2\n"
Facts = Callable[..., Path]


@pytest.fixture
def facts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Facts:
    """Write what a machine has in /proc, by path; no control group limits it, and no variable of WSL is set."""
    root = tmp_path / "proc"
    for module in (wsl, mounts, hardware):
        monkeypatch.setattr(module, "PROC", root)
    monkeypatch.delenv("WSL_DISTRO_NAME", raising=False)
    paths._takes_sockets.cache_clear()

    def put(release: str = WSL2, **files: str) -> Path:
        for name, text in {"sys/kernel/osrelease": release, **files}.items():
            path = root / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text)
        return root

    return put


def mountinfo(drive: Path, kind: str = "9p") -> str:
    """Return /proc/self/mountinfo of WSL 2, with a Windows drive at `drive`."""
    point = str(drive).replace(" ", "\\040")
    return (
        "75 79 8:32 / / rw,relatime - ext4 /dev/sdc rw,discard,errors=remount-ro,data=ordered\n"
        "98 75 0:48 / /usr/lib/wsl/drivers ro,nosuid shared:2 - 9p none ro,dirsync,aname=drivers;fmask=222\n"
        f"111 75 0:52 / {point} rw,noatime - {kind} C:\\134 rw,dirsync,aname=drvfs;path=C:\\;uid=1000\n"
        "a line of another form\n"
    )


@pytest.mark.parametrize(
    ("release", "version"),
    [
        (WSL2, 2),
        ("5.10.16.3-microsoft-standard-WSL2\n", 2),
        ("4.4.0-19041-Microsoft\n", 1),
        ("6.8.0-1021-azure\n", 0),
        ("6.1.0-37-amd64\n", 0),
    ],
)
def test_the_kernel_tells_the_generation(facts: Facts, release: str, version: int) -> None:
    facts(release)
    assert wsl.version() == version


def test_a_kernel_of_ones_own_is_known_by_the_variable_or_the_interpreter(
    facts: Facts, monkeypatch: pytest.MonkeyPatch
) -> None:
    root = facts("6.12.0-mine\n")
    assert wsl.version() == 0
    monkeypatch.setenv("WSL_DISTRO_NAME", "Debian")
    assert wsl.version() == 2
    monkeypatch.delenv("WSL_DISTRO_NAME")
    facts("6.12.0-mine\n", **{"sys/fs/binfmt_misc/WSLInterop": "enabled\n"})
    assert wsl.version() == 2
    for path in sorted(root.rglob("*"), reverse=True):
        path.unlink() if path.is_file() else path.rmdir()
    assert wsl.version() == 0, "macOS has no /proc"


@pytest.mark.parametrize("name", ["c", "my drive"])
def test_a_windows_drive_is_found_by_its_file_system(facts: Facts, tmp_path: Path, name: str) -> None:
    drive = tmp_path / name
    facts(**{"self/mountinfo": mountinfo(drive)})
    assert wsl.windows_drive(drive / "models/m.gguf") == drive
    assert wsl.windows_drive(tmp_path / "m.gguf") is None
    assert wsl.windows_drive(tmp_path / f"{name}x") is None, "beside it"
    facts("6.1.0-37-amd64\n")
    assert wsl.windows_drive(drive) is None, "a virtual machine's shared folder"


def test_this_machines_own_mounts_are_read() -> None:
    mount = mounts.mount_of(Path("/proc/self"))
    if os.uname().sysname == "Linux":
        assert mount is not None
        assert (mount.point, mount.type) == (Path("/proc"), "proc")


def test_the_memory_is_that_of_wsl_and_a_refusal_names_the_line_for_more(facts: Facts) -> None:
    facts(meminfo="MemTotal:       16384000 kB\nMemAvailable:   15360000 kB\n")
    machine = hardware.this_machine()
    assert (machine.bytes_free, machine.bytes_reserved) == (15360000 << 10, 1024000 << 10)
    with pytest.raises(DoesNotFit) as refusal:
        plan(MIXTRAL, machine, PlanRequest(n_ctx=4096))
    words = str(refusal.value)
    assert "14.6 GiB are free" in words
    assert r"or memory=30GB under [wsl2] in Windows' %UserProfile%\.wslconfig, then `wsl --shutdown`" in words
    assert words.count(", or ") == 2
    given = Machine(30 * GIB - machine.bytes_reserved, machine.n_cores)
    assert plan(MIXTRAL, given, PlanRequest(n_ctx=4096)).n_ctx == 4096, "so much is enough"
    facts("6.1.0-37-amd64\n")
    with pytest.raises(DoesNotFit) as refusal:
        plan(MIXTRAL, hardware.this_machine(), PlanRequest(n_ctx=4096))
    assert "wslconfig" not in str(refusal.value)


def test_a_card_that_windows_uses_too_keeps_a_larger_reserve(facts: Facts) -> None:
    device = DeviceFacts("CUDA0", "NVIDIA GeForce RTX 4090", "gpu", 22 * GIB, 24 * GIB, "CUDA0")
    facts("6.1.0-37-amd64\n")
    alone = hardware._gpu(device).bytes_free
    facts()
    assert hardware._gpu(device).bytes_free == 21 * GIB < alone


def test_a_model_on_a_windows_drive_is_noted_with_a_better_place(
    home: Path, facts: Facts, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    drive = tmp_path / "c"
    drive.mkdir()
    facts(**{"self/mountinfo": mountinfo(drive)})
    path = small_gguf.write(drive / "tiny.F16.gguf", small_gguf.gguf())
    import_model(path, None, False, lambda *_: None)
    assert f"mixcli import --copy {path}" in capsys.readouterr().err
    import_model(path, "other", True, lambda *_: None)
    assert "Windows drive" not in capsys.readouterr().err
    assert wsl.slow_drive_note(paths.models_dir()) == ()


def test_a_store_on_a_windows_drive_has_its_sockets_elsewhere(home: Path, facts: Facts) -> None:
    facts(**{"self/mountinfo": mountinfo(home.parent)})
    place = paths.runtime_dir()
    assert not place.is_relative_to(home)
    assert place.stat().st_mode & 0o777 == 0o700
    (note,) = wsl.slow_drive_note(home / "data/models/m.gguf")
    assert "MIXCLI_HOME" in note, "a copy would lie on the same drive"
    place.rmdir()
    paths._takes_sockets.cache_clear()


def test_the_doctor_tells_what_wsl_has(
    home: Path, facts: Facts, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    facts("6.1.0-37-amd64\n")
    assert install_checks.subsystem() == []
    facts("4.4.0-19041-Microsoft\n")
    (old,) = install_checks.subsystem()
    assert (old.state, "wsl --set-version" in old.words) == ("warn", True)
    facts(meminfo="MemTotal: 16384000 kB\n", **{"self/mountinfo": mountinfo(home.parent)})
    found = {one.what: one for one in install_checks.subsystem()}
    assert found["wsl"].words.startswith("WSL 2 has 16.8 GB; for more, write memory=NGB under [wsl2]")
    assert found["wsl drives"].state == "warn"
    monkeypatch.setattr(install_checks, "DEVICES", tmp_path)
    monkeypatch.setattr(wsl, "LIBRARIES", tmp_path / "lib")
    (tmp_path / "dxg").touch()
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setitem(sys.modules, "pynvml", None)
    (driver,) = install_checks.gpu_driver()
    assert "install its driver in Windows, not in WSL" in driver.words
    (tmp_path / "lib").mkdir()
    smi = tmp_path / "lib/nvidia-smi"  # root does not have this folder in PATH
    smi.write_text("#!/bin/sh\necho 'NVIDIA GeForce RTX 4090, 24564'\n")
    smi.chmod(0o755)
    (driver,) = install_checks.gpu_driver()
    assert (driver.state, driver.words.partition(";")[0]) == ("ok", "NVIDIA GeForce RTX 4090")
