"""llama.cpp's own programs, to measure against, compiled once for this machine: llama-bench, llama-batched-bench and llama-server.

    python -m bench.peers [--tools] [--sdist UNPACKED]

They are built from the source distribution that the bindings were built from, with the flags that .ci/setup gives these, so that both sides
run the same kernels. What is built is kept in the user's cache, under a key of version, flags, processor and compiler. The tools are
llama-imatrix, llama-perplexity and llama-quantize: each is one source file, compiled when it is missing, and linked to the libraries of the
others, which stay as they are.
"""

import argparse
import hashlib
import os
import platform
import shutil
import subprocess
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path

from bench.compiled import compiled
from bench.sdist import NO_AMX, llama_cpp

TARGETS = ("llama-bench", "llama-batched-bench", "llama-server")
# name: its sources under llama.cpp's tools/
TOOLS = {
    "llama-imatrix": ("imatrix/imatrix.cpp",),
    "llama-perplexity": ("perplexity/perplexity.cpp", "perplexity/main.cpp"),
    "llama-quantize": ("quantize/quantize.cpp", "quantize/main.cpp"),
}
_OPTIONS = (
    "CMAKE_BUILD_TYPE=Release",
    "CMAKE_BUILD_RPATH_USE_ORIGIN=ON",
    "GGML_RPC=ON",
    "LLAMA_BUILD_APP=OFF",
    "LLAMA_BUILD_EXAMPLES=OFF",
    "LLAMA_BUILD_TESTS=OFF",
    "LLAMA_BUILD_UI=OFF",
    "LLAMA_OPENSSL=OFF",
    "LLAMA_USE_PREBUILT_UI=OFF",
)


@dataclass(frozen=True)
class Peers:
    """The folder with the programs and their libraries."""

    folder: Path

    @property
    def bench(self) -> Path:
        return self.folder / "llama-bench"

    @property
    def batched_bench(self) -> Path:
        return self.folder / "llama-batched-bench"

    @property
    def server(self) -> Path:
        return self.folder / "llama-server"


def peers(sdist: Path | None = None) -> Peers:
    """Return llama.cpp's programs; they are compiled the first time, about ten minutes on two cores."""
    place = _cache() / _key()
    if not (place / "bin").is_dir():
        _build(llama_cpp(sdist), place)
    return Peers(place / "bin")


def with_tools(sdist: Path | None = None) -> Peers:
    """Return llama.cpp's programs with its tools; those that are missing are compiled, about a minute each."""
    found = peers(sdist)
    for name in TOOLS:
        if not (found.folder / name).is_file():
            print(f"compiling {name}, about a minute, once", flush=True)
            _compile_tool(name, llama_cpp(sdist), found.folder)
    return found


def _compile_tool(name: str, root: Path, folder: Path) -> None:
    libraries = ("-lllama-common", "-lllama", "-lggml", "-lggml-base")
    sources = [root / "tools" / source for source in TOOLS[name]]
    compiled(sources, root, folder, libraries, folder / name, *_flags().split())


def _build(source: Path, place: Path) -> None:
    """Compile in `place`/build and publish `place`/bin by a rename; a build that was interrupted resumes."""
    if not shutil.which("cmake"):
        raise SystemExit(
            "cmake is not installed and llama.cpp must be compiled here; install it (pip install cmake)."
        )
    build = place / "build"
    build.mkdir(parents=True, exist_ok=True)
    print(
        "compiling llama-bench, llama-batched-bench and llama-server, about ten minutes on two cores, once",
        flush=True,
    )
    generator = ["-G", "Ninja"] if shutil.which("ninja") else []
    options = [
        f"-D{option}" for option in (*_OPTIONS, *(f"CMAKE_{name}_FLAGS={_flags()}" for name in ("C", "CXX")))
    ]
    jobs = str(len(os.sched_getaffinity(0)))
    with (place / "log").open("ab") as log:
        for step in (
            ["cmake", "-S", str(source), "-B", str(build), *generator, *options],
            ["cmake", "--build", str(build), "-j", jobs, "--target", *TARGETS],
        ):
            if subprocess.run(step, stdout=log, stderr=log, check=False).returncode:
                raise SystemExit(f"llama.cpp's programs did not compile; the whole story is in {log.name}.")
    (build / "bin").replace(place / "bin")
    shutil.rmtree(build)


def _flags() -> str:
    if platform.machine() not in {"x86_64", "AMD64"}:
        return ""
    probe = [os.environ.get("CC", "gcc"), *NO_AMX.split(), "-x", "c", "-o", os.devnull, "-"]
    knows = subprocess.run(probe, input=b"int main(void){return 0;}", capture_output=True, check=False)
    return "" if knows.returncode else NO_AMX


def _key() -> str:
    compiler = subprocess.run(
        [os.environ.get("CXX", "g++"), "--version"], capture_output=True, check=True, text=True
    ).stdout.splitlines()[0]
    cpu = next(
        (line for line in Path("/proc/cpuinfo").read_text("utf-8").splitlines() if line.startswith("flags")),
        "",
    )
    release = version("llama-cpp-python")
    parts = (release, *_OPTIONS, *TARGETS, _flags(), compiler, cpu)
    return f"{release}-{hashlib.sha256(repr(parts).encode()).hexdigest()[:12]}"


def _cache() -> Path:
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "mixcli" / "peers"


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument(
        "--sdist", type=Path, help="unpacked source of llama-cpp-python, if it is there already"
    )
    parser.add_argument("--tools", action="store_true", help=f"with {', '.join(TOOLS)}")
    options = parser.parse_args()
    print((with_tools if options.tools else peers)(options.sdist).folder)


if __name__ == "__main__":
    main()
