"""llama.cpp's own source, to build peers from: it comes with the source distribution of llama-cpp-python, the very version installed here."""

import subprocess
import sys
import tarfile
from importlib.metadata import version
from pathlib import Path

# GCC's AMX kernels crash at the first matrix product on processors that have AMX (see .ci/setup)
NO_AMX = "-mno-amx-tile -mno-amx-int8 -mno-amx-bf16"
FOLDER = Path(__file__).parent.parent / "build" / "reference"


def llama_cpp(given: Path | None = None) -> Path:
    """Return llama.cpp's source tree: of `given`, an unpacked source distribution or the tree itself, or downloaded once."""
    unpacked = given or _unpack()
    for tree in (unpacked / "vendor" / "llama.cpp", unpacked):
        if (tree / "convert_hf_to_gguf.py").is_file():
            return tree
    raise SystemExit(f"{unpacked} has no llama.cpp in it; give the unpacked source of llama-cpp-python.")


def fetch(folder: Path) -> Path:
    """Download the source distribution into a folder, once; CalledProcessError without an index."""
    release = version("llama-cpp-python")
    packed = folder / f"llama_cpp_python-{release}.tar.gz"
    if not packed.is_file():
        folder.mkdir(parents=True, exist_ok=True)
        print(f"downloading {packed.name}", flush=True)
        pip = [sys.executable, "-m", "pip", "-qq", "download", "--no-deps", "--dest", str(folder)]
        subprocess.run([*pip, "--no-binary", "llama-cpp-python", f"llama-cpp-python=={release}"], check=True)
    return packed


def _unpack() -> Path:
    unpacked = FOLDER / f"llama_cpp_python-{version('llama-cpp-python')}"
    if not (unpacked / "vendor").is_dir():
        packed = fetch(FOLDER)
        with tarfile.open(packed) as archive:
            archive.extractall(FOLDER, filter="data")
        packed.unlink()
    return unpacked
