"""Recognize the Windows Subsystem for Linux, where memory, drives and the GPU are shared with Windows; docs/windows.md is for people.

A container on such a machine has the same kernel, and counts too.
"""

import os
from pathlib import Path

from mixcli.system import paths
from mixcli.system.mounts import mount_of

PROC = Path("/proc")
LIBRARIES = Path("/usr/lib/wsl/lib")  # where Windows' driver puts its programs and libraries for Linux
WINDOWS_DRIVES = {"9p", "drvfs", "virtiofs"}
GIB = 1 << 30
SETTING = (
    "memory={}GB under [wsl2] in Windows' %UserProfile%\\.wslconfig, then `wsl --shutdown` "
    "(by default WSL has half of Windows' memory)"
)


def version() -> int:
    """Return 1 or 2 for the generation of WSL, 0 elsewhere.

    The kernel's name shows it; with a custom kernel, the variable or the interpreter for Windows' programs does.
    """
    try:
        release = (PROC / "sys/kernel/osrelease").read_text("utf-8", "replace").strip()
    except OSError:
        return 0
    if "microsoft" in release.lower():
        return (
            1 if release.endswith("-Microsoft") else 2
        )  # 4.4.0-19041-Microsoft, 6.6.87.2-microsoft-standard-WSL2
    interop = PROC / "sys/fs/binfmt_misc"
    has_interop = any((interop / name).exists() for name in ("WSLInterop", "WSLInterop-late"))
    return 2 if has_interop or os.environ.get("WSL_DISTRO_NAME") else 0


def windows_drive(path: Path) -> Path | None:
    """Return where the Windows drive is mounted that a path is on, such as /mnt/c; None for Linux' own file systems."""
    if not version():
        return None
    mount = mount_of(path)
    return mount.point if mount and mount.type in WINDOWS_DRIVES else None


def slow_drive_note(path: Path) -> tuple[str, ...]:
    """Return a sentence on a model on a Windows drive, and where to put it; nothing elsewhere."""
    drive = windows_drive(path)
    if drive is None:
        return ()
    step = f"copy it to Linux' own disk: `mixcli import --copy {path}`"
    if windows_drive(paths.models_dir()):
        step = "set MIXCLI_HOME to a folder under your Linux home"
    return (f"{path} is on a Windows drive ({drive}), which WSL reads slowly; {step}",)


__all__ = ["LIBRARIES", "SETTING", "slow_drive_note", "version", "windows_drive"]
