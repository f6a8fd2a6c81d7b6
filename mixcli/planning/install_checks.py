"""Checks of `mixcli doctor` on the installation: what is missing on this system, and the command that installs or allows it."""

import importlib.metadata
import os
import resource
import shutil
import subprocess
import sys
import sysconfig
from collections.abc import Iterator
from pathlib import Path

from mixcli.planning.finding import Finding
from mixcli.system import paths, wsl
from mixcli.system.formatting import format_bytes
from mixcli.system.hardware import gpu_backends, memory_total
from mixcli.system.nvidia import cuda_wheel, driver_cards, has_card
from quantize import bindings

DEVICES = Path("/dev")
COMPILERS = ("c++", "g++", "clang++")
COMPILER_SECONDS = 10.0  # for a compiler to say its version
# the step that installs a compiler, and that for NVIDIA's driver, by the system's package manager; the first one that is found counts
PACKAGES = {
    "apt-get": (
        "run `sudo apt-get install build-essential`",
        "run `sudo apt-get install nvidia-driver` (Ubuntu: `sudo ubuntu-drivers install`)",
    ),
    "dnf": ("run `sudo dnf install gcc-c++ make`", "run `sudo dnf install akmod-nvidia` (from RPM Fusion)"),
    "pacman": ("run `sudo pacman -S base-devel`", "run `sudo pacman -S nvidia`"),
    "zypper": ("run `sudo zypper install gcc-c++ make`", "run `sudo zypper install nvidia-drivers-G06`"),
    "apk": ("run `sudo apk add build-base`", ""),
    "xcode-select": ("run `xcode-select --install`", ""),
}
MIN_FILES = (
    1024  # open files: `mixcli serve` holds up to 400 connections, each with one to the model's process
)
# (limit, its option of ulimit, what it bounds, the least that models work with in bytes)
SIZES = (
    (resource.RLIMIT_AS, "v", "the address space of a process", 64 << 30),
    (resource.RLIMIT_DATA, "d", "the memory of a process", 16 << 30),
    (resource.RLIMIT_FSIZE, "f", "the size of a file", 64 << 30),
)


def program() -> Finding:
    """Check that the shell finds this installation's `mixcli`."""
    scripts = {_real(sysconfig.get_path("scripts")), _real(sysconfig.get_path("scripts", f"{os.name}_user"))}
    found = shutil.which("mixcli")
    if found and _real(found).parent in scripts:
        return Finding("program", "ok", found)
    if found:
        words = f"`mixcli` in this shell is {found}, a different installation from this one in {sys.prefix}; remove one, or change PATH"
        return Finding("program", "warn", words)
    return Finding("program", "warn", f"the shell does not find `mixcli`; {_path_step(Path(sys.prefix))}")


def _real(path: str) -> Path:
    return Path(path).resolve()


def _path_step(prefix: Path) -> str:
    """Return how to put an installation's programs into PATH."""
    if "pipx" in prefix.parts:
        return "run `pipx ensurepath` and open a new shell"
    if prefix.parts[-3:-1] == ("uv", "tools"):
        return "run `uv tool update-shell` and open a new shell"
    if sys.prefix != sys.base_prefix:
        return f"run `. {prefix}/bin/activate`"
    return f"add {sysconfig.get_path('scripts', f'{os.name}_user')} to PATH"


def compiler() -> Finding:
    """Check for a C++ compiler, which is needed where llama.cpp must be compiled: a problem only if it must."""
    try:
        is_needed = bool(bindings.wrong_release(importlib.metadata.version("llama-cpp-python")))
    except importlib.metadata.PackageNotFoundError:
        is_needed = True
    found = next(filter(None, map(shutil.which, COMPILERS)), None)
    if found is None:
        step = _install_step(0) or "install gcc and g++"
        words = f"no C++ compiler; to compile llama.cpp, {step}"
        return Finding("compiler", "fail" if is_needed else "ok", words)
    nvcc = shutil.which("nvcc")
    return Finding("compiler", "ok", " and ".join(filter(None, (_version(found), nvcc and f"nvcc ({nvcc})"))))


def _version(program: str) -> str:
    """Return a compiler's name with its version, as it says it."""
    try:
        done = subprocess.run(
            [program, "--version"], capture_output=True, text=True, check=False, timeout=COMPILER_SECONDS
        )
    except (OSError, subprocess.SubprocessError):
        return program
    return next(iter(done.stdout.splitlines()), program)


def _install_step(which: int) -> str:
    """Return the step for this system, from a row of PACKAGES; nothing where it is not known."""
    return next((steps[which] for name, steps in PACKAGES.items() if shutil.which(name)), "")


def gpu_driver() -> list[Finding]:
    """Check for NVIDIA's driver where there is such a GPU; nothing where there is none."""
    if cards := driver_cards():
        version = f"{cuda_wheel() // 10}.{cuda_wheel() % 10}"
        words = f"{', '.join(card.name for card in cards)}; supports wheels for CUDA {version}"
        return [Finding("driver", "ok", words)]
    if wsl.version() == 2:
        return _driver_in_wsl()
    if has_card():
        step = _install_step(1) or "install it with your package manager"
        words = f"an NVIDIA GPU is installed, but its driver does not respond; {step} and restart"
        return [Finding("driver", "warn", f"{words}; in a container, start it with `--gpus all`")]
    if "cuda" in gpu_backends():
        words = "llama.cpp was installed with CUDA, but no NVIDIA driver responds"
        return [Finding("driver", "warn", f"{words}; models run on the CPU")]
    return []


def _driver_in_wsl() -> list[Finding]:
    if (DEVICES / "dxg").exists() and not (wsl.LIBRARIES / "libcuda.so.1").exists():
        words = "Windows has no NVIDIA driver with CUDA for WSL; for an NVIDIA GPU install its driver in Windows, not in WSL"
        return [Finding("driver", "warn" if "cuda" in gpu_backends() else "ok", words)]
    if (wsl.LIBRARIES / "libcuda.so.1").exists():
        words = "NVIDIA's driver of Windows does not respond here; run `wsl --update` and `wsl --shutdown` in Windows"
        return [Finding("driver", "warn", words)]
    return []


def subsystem() -> list[Finding]:
    """Check what WSL gets of Windows; nothing elsewhere."""
    version = wsl.version()
    if version == 1:
        words = "WSL 1 has no GPU; in Windows, run `wsl --set-version DISTRIBUTION 2`"
        return [Finding("wsl", "warn", words)]
    if not version:
        return []
    words = f"WSL 2 has {format_bytes(memory_total())}; for more, write {wsl.SETTING.format('N')}"
    found = [Finding("wsl", "ok", words)]
    if "cuda" in gpu_backends():
        words = (
            "in WSL, CUDA can pin only a part of the memory: with experts in host memory, prefill may be slower than planned; "
            "`mixcli tune MODEL` measures it"
        )
        found.append(Finding("wsl pinned memory", "ok", words))
    for variable, folder in (("MIXCLI_HOME", paths.models_dir()), ("HF_HOME", paths.hub_cache_dir())):
        if drive := wsl.windows_drive(folder):
            words = f"{folder} is on a Windows drive ({drive}), which WSL reads slowly; set {variable} to a folder under your Linux home"
            found.append(Finding("wsl drives", "warn", words))
    return found


def limits() -> Finding:
    """Check the limits of this shell (ulimit) that models run into."""
    low = [f"{what} to {format_bytes(n)} (`ulimit -{option}`)" for what, n, option in _low_sizes()]
    files, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    if 0 <= files < MIN_FILES:
        low.append(f"open files to {files} (`ulimit -n {MIN_FILES}` before `mixcli serve`)")
    if not low:
        return Finding("limits", "ok", "no limit of this shell is too low")
    words = f"this shell limits {', and '.join(low)}; raise it there, or in /etc/security/limits.conf"
    return Finding("limits", "warn", words)


def _low_sizes() -> Iterator[tuple[str, int, str]]:
    for which, option, what, least in SIZES:
        soft, _ = resource.getrlimit(which)
        if 0 <= soft < least:
            yield what, soft, option


def folders() -> Finding:
    """Check that every folder that mixcli writes into can be written."""
    wrong = {}
    for place in (paths.data_dir, paths.config_dir, paths.cache_dir, paths.runtime_dir):
        try:
            folder = place()
            if not os.access(folder, os.W_OK | os.X_OK):  # also where it could not be made
                wrong[str(folder)] = "is not writable; set MIXCLI_HOME to a writable folder"
        except OSError as error:  # a file, or another user's
            wrong[str(error.filename)] = (
                f"cannot be used ({error.strerror}); set MIXCLI_HOME to a folder of your own"
            )
    downloads = paths.hub_cache_dir()
    if not os.access(_existing(downloads), os.W_OK | os.X_OK):
        wrong[str(downloads)] = "is not writable; set HF_HOME to a writable folder"
    words = "; ".join(f"{folder} {why}" for folder, why in wrong.items())
    return Finding("folders", "fail" if wrong else "ok", words or "all are writable")


def _existing(path: Path) -> Path:
    """Return the nearest folder of a path that exists."""
    return next((one for one in (path, *path.parents) if one.exists()), path)


__all__ = ["compiler", "folders", "gpu_driver", "limits", "program", "subsystem"]
