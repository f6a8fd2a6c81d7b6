"""llama.cpp's own source, to build peers from: it comes with the source distribution of llama-cpp-python, the very version installed here."""

import subprocess
import sys
import tarfile
from importlib.metadata import version
from pathlib import Path

FOLDER = Path(__file__).parent.parent / "build" / "reference"


def llama_cpp(given: Path | None = None) -> Path:
    """Give llama.cpp's source tree: of `given`, an unpacked source distribution or the tree itself, or downloaded once."""
    unpacked = given or _unpack()
    for tree in (unpacked / "vendor" / "llama.cpp", unpacked):
        if (tree / "convert_hf_to_gguf.py").is_file():
            return tree
    raise SystemExit(f"{unpacked} has no llama.cpp in it; give the unpacked source of llama-cpp-python.")


def _unpack() -> Path:
    release = version("llama-cpp-python")
    name = f"llama_cpp_python-{release}"
    if not (FOLDER / name / "vendor").is_dir():
        FOLDER.mkdir(parents=True, exist_ok=True)
        print(f"downloading {name}.tar.gz", flush=True)
        pip = [sys.executable, "-m", "pip", "--quiet", "--disable-pip-version-check", "download", "--no-deps"]
        wanted = ["--no-binary", "llama-cpp-python", "--dest", str(FOLDER), f"llama-cpp-python=={release}"]
        subprocess.run([*pip, *wanted], check=True)
        with tarfile.open(FOLDER / f"{name}.tar.gz") as archive:
            archive.extractall(FOLDER, filter="data")
        (FOLDER / f"{name}.tar.gz").unlink()
    return FOLDER / name
