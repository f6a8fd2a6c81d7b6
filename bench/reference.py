"""llama.cpp's own converter, to measure against: its scripts unpacked, and a virtual environment that can run them.

The scripts come with the source distribution of llama-cpp-python, the very version that mixcli is installed with. They need torch
and transformers, which mixcli does not: everything is installed under build/reference (1.4 GB), once.
"""

import subprocess
import sys
import tarfile
import venv
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path

FOLDER = Path(__file__).parent.parent / "build" / "reference"
PACKAGES = (
    "torch==2.13.0",
    "transformers>=5,<6",
    "sentencepiece",
    "protobuf",
    "mistral_common",
    "requests",
    "setuptools",
)


@dataclass(frozen=True)
class Reference:
    """How to run llama.cpp's converter: a Python that has what it needs, and the script."""

    python: Path
    script: Path


def reference(sdist: Path | None = None, python: Path | None = None) -> Reference:
    """Give llama.cpp's converter; whatever is not given is downloaded and installed, which takes minutes the first time."""
    unpacked = sdist or _unpack()
    script = unpacked / "vendor" / "llama.cpp" / "convert_hf_to_gguf.py"
    if not script.is_file():
        raise SystemExit(f"{unpacked} has no {script.name}; give the unpacked source of llama-cpp-python.")
    return Reference(python or _environment(), script)


def _unpack() -> Path:
    name = f"llama_cpp_python-{version('llama-cpp-python')}"
    if not (FOLDER / name / "vendor").is_dir():
        FOLDER.mkdir(parents=True, exist_ok=True)
        print(f"downloading {name}.tar.gz", flush=True)
        _pip(
            Path(sys.executable),
            *("download", "--no-deps", "--no-binary", "llama-cpp-python", "--dest", str(FOLDER)),
            f"llama-cpp-python=={version('llama-cpp-python')}",
        )
        with tarfile.open(FOLDER / f"{name}.tar.gz") as archive:
            archive.extractall(FOLDER, filter="data")
        (FOLDER / f"{name}.tar.gz").unlink()
    return FOLDER / name


def _environment() -> Path:
    python = FOLDER / "venv" / "bin" / "python"
    ready = FOLDER / "venv" / ".ready"
    if not ready.exists():
        print("installing what llama.cpp's converter needs", flush=True)
        venv.create(FOLDER / "venv", clear=True, with_pip=True)
        _pip(python, "install", *PACKAGES)
        ready.touch()
    return python


def _pip(python: Path, *arguments: str) -> None:
    command = [str(python), "-m", "pip", "--quiet", "--disable-pip-version-check", *arguments]
    subprocess.run(command, check=True)
