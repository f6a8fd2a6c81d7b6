"""Compile llama-cpp-python from the packed source for the card of this machine, with steps that can be gone on with.

The build folder stays, so a call that runs out of time is simply made again.
"""

import os
import subprocess
import sys
import tarfile
from pathlib import Path

AMX_OFF = "-mno-amx-tile -mno-amx-int8 -mno-amx-bf16"  # GCC's AMX kernels crash at the first matrix product


def architecture() -> str | None:
    """Give the compute capability of the first card as CMake wants it ("89"), None without a driver."""
    query = ["nvidia-smi", "--query-gpu=compute_cap", "--format=csv,noheader"]
    try:
        said = subprocess.run(query, capture_output=True, text=True, check=True).stdout
    except (OSError, subprocess.CalledProcessError):
        return None
    first = said.strip().splitlines()[0].strip() if said.strip() else ""
    return first.replace(".", "") if first.replace(".", "").isdigit() else None


def cmake_args(arch: str | None) -> list[str]:
    """Give what CMake is told: one architecture only, RPC for comparisons, no vision."""
    cuda = [f"-DCMAKE_CUDA_ARCHITECTURES={arch}", "-DGGML_CUDA=ON"] if arch else ["-DGGML_CUDA=OFF"]
    return [*cuda, "-DGGML_RPC=ON", "-DLLAVA_BUILD=OFF", "-DLLAMA_CURL=OFF"]


def unpack(packed: Path, place: Path) -> Path:
    """Unpack the source, once; gives its root."""
    if not list(place.glob("llama_cpp_python-*/pyproject.toml")):
        place.mkdir(parents=True, exist_ok=True)
        with tarfile.open(packed / "llama-cpp-python.tar.gz") as archive:
            archive.extractall(place, filter="data")
    return next(place.glob("llama_cpp_python-*"))


def configure(source: Path, folder: Path, arch: str | None) -> None:
    """Let CMake read all of the source: a file that trimming took away and that is needed is missed here."""
    command = ["cmake", "-S", str(source), "-B", str(folder), "-DCMAKE_BUILD_TYPE=Release", *cmake_args(arch)]
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL, env=_environment())


def wheel(source: Path, place: Path, arch: str | None, seconds: float) -> Path | None:
    """Make the wheel; None when `seconds` were not enough, and then the next call goes on."""
    out, folder = place / "wheels", place / f"build-{arch or 'cpu'}"
    command = [
        sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--no-build-isolation", "--wheel-dir", str(out),
        f"--config-settings=build-dir={folder}", str(source),
    ]  # fmt: skip
    env = {**_environment(), "CMAKE_ARGS": " ".join(cmake_args(arch))}
    try:
        subprocess.run(command, check=True, timeout=seconds, env=env)
    except subprocess.TimeoutExpired:
        return None
    return next(out.glob("llama_cpp_python-*.whl"))


def _environment() -> dict[str, str]:
    flags = AMX_OFF if os.uname().machine == "x86_64" else ""
    n_jobs = str(os.cpu_count() or 2)
    return {**os.environ, "CFLAGS": flags, "CXXFLAGS": flags, "CMAKE_BUILD_PARALLEL_LEVEL": n_jobs}
