"""Install what was packed and compile llama-cpp-python from the packed source, for the card of this machine.

All of it goes into a folder of its own, `site`; the environment that Python came with stays as it is. The build folder stays, so a call that
runs out of time is simply made again. A wheel of llama-cpp-python that travelled along (`pack --arch`) is installed as it is.
"""

import argparse
import os
import shutil
import signal
import subprocess
import sys
import tarfile
from pathlib import Path
from zlib import crc32

from bench.sdist import NO_AMX

AGAIN = 75  # EX_TEMPFAIL: the exit code of a step that can be gone on with
# what the processor beside a card of Hopper's time has: Sapphire Rapids, Zen 4 and later
SERVER = ("AVX", "AVX2", "FMA", "F16C", "BMI2", "AVX512", "AVX512_VBMI", "AVX512_VNNI", "AVX512_BF16")
NOT_BINDINGS = "lib/**;include/**;bin/**"  # llama.cpp's own installation, which the wheel would hold beside the bindings' copy
BINDINGS = "llama_cpp_python-*.whl"
ROOT = Path(__file__).resolve().parents[2]


def main(options: argparse.Namespace) -> int:
    arch = None if options.stand_in else architecture()
    if arch is None and not options.stand_in:
        raise SystemExit("no NVIDIA driver answers here; on a machine without a GPU there is `dry`")
    folder = options.folder
    (folder / "fit").unlink(missing_ok=True)  # linked to what was there before
    wheels, source = folder / "packed" / "wheels", unpack(folder / "packed", folder / "source")
    install(sorted(wheels.glob("*.whl")), folder / "site")
    enter(folder)
    if ready := next(wheels.glob(BINDINGS), None):
        print(f"{ready.name} was compiled elsewhere")
        return 0
    made = wheel(source, folder, cmake_args(arch), options.seconds)
    if made is None:
        print("not finished; call again")
        return AGAIN
    install([made], folder / "site")
    print(f"{made.name} for {f'sm_{arch}' if arch else 'the processor alone'}, in {folder / 'site'}")
    return 0


def architecture() -> str | None:
    """Return the compute capability of the first card as CMake wants it ("89"), None without a driver."""
    query = ["nvidia-smi", "--query-gpu=compute_cap", "--format=csv,noheader"]
    try:
        said = subprocess.run(query, capture_output=True, text=True, check=True).stdout
    except (OSError, subprocess.CalledProcessError):
        return None
    first = said.strip().splitlines()[0].strip() if said.strip() else ""
    return first.replace(".", "") if first.replace(".", "").isdigit() else None


def cmake_args(arch: str | None, elsewhere: bool = False) -> list[str]:
    """Return the options of CMake: one architecture only, RPC for comparisons, no vision.

    `elsewhere` is for a server's processor instead of this one, and for a small wheel, which would hold every library under three names.
    """
    cuda = [f"-DCMAKE_CUDA_ARCHITECTURES={arch}-real", "-DGGML_CUDA=ON"] if arch else ["-DGGML_CUDA=OFF"]
    host = ["-DGGML_NATIVE=ON"]
    if elsewhere:
        host = ["-DGGML_NATIVE=OFF", "-DCMAKE_PLATFORM_NO_VERSIONED_SONAME=ON"]
        host += [f"-DGGML_{feature}=ON" for feature in SERVER]
    return [*cuda, *host, "-DGGML_RPC=ON", "-DLLAVA_BUILD=OFF", "-DLLAMA_CURL=OFF"]


def enter(folder: Path) -> None:
    """Let this process and those that it starts import what was installed there, mixcli from this tree and the packed vocabulary."""
    paths = [str(folder / "site"), str(ROOT), str(folder / "packed")]
    sys.path[:0] = paths
    os.environ["PYTHONPATH"] = os.pathsep.join(paths)


def install(wheels: list[Path], site: Path) -> None:
    """Install wheels into a folder, with pip and without a network."""
    pip = [sys.executable, "-m", "pip", "install", "-qq", "--no-index", "--no-deps", "--no-compile"]
    subprocess.run([*pip, "--upgrade", "--target", str(site), *map(str, wheels)], check=True)


def unpack(packed: Path, place: Path) -> Path:
    """Unpack the source again, so that nothing is there that does not travel; gives its root. Times are the archive's, so nothing is compiled twice."""
    shutil.rmtree(place, ignore_errors=True)
    with tarfile.open(packed / "llama-cpp-python.tar.gz") as archive:
        archive.extractall(place, filter="data")
    return next(place.glob("llama_cpp_python-*"))


def wheel(source: Path, place: Path, told: list[str], seconds: float | None) -> Path | None:
    """Make the wheel with what CMake is `told`; None when `seconds` were not enough, and then the next call goes on."""
    out, folder = place / "wheels", place / f"build-{crc32(' '.join(told).encode()):08x}"
    shutil.rmtree(out, ignore_errors=True)
    command = [
        sys.executable, "-m", "pip", "wheel", "--quiet", "--no-index", "--no-deps", "--no-build-isolation", "--wheel-dir", str(out),
        f"--config-settings=build-dir={folder}", f"--config-settings=wheel.exclude={NOT_BINDINGS}", str(source),
    ]  # fmt: skip
    flags = NO_AMX if os.uname().machine == "x86_64" else ""
    n_jobs = str(os.cpu_count() or 2)
    env = {"CFLAGS": flags, "CXXFLAGS": flags, "CMAKE_BUILD_PARALLEL_LEVEL": n_jobs}
    if not finished(command, seconds, {**os.environ, **env, "CMAKE_ARGS": " ".join(told)}):
        return None
    return next(out.glob(BINDINGS))


def finished(command: list[str], seconds: float | None, env: dict[str, str] | None = None) -> bool:
    """Run a command for so long at most, then end it with all that it started; says whether it finished. CalledProcessError when it failed."""
    process = subprocess.Popen(command, env=env, process_group=0)
    try:
        code = process.wait(seconds)
    except subprocess.TimeoutExpired:
        return False
    finally:
        if process.poll() is None:  # compilers that outlive it would meet those of the next call
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()
    if code:
        raise subprocess.CalledProcessError(code, command)
    return True
