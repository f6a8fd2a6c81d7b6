"""llama.cpp's own converter, to measure against: its scripts unpacked, and a virtual environment that can run them.

The scripts come with the source distribution of llama-cpp-python, the very version that mixcli is installed with. They need torch
and transformers, which mixcli does not: everything is installed under build/reference (1.4 GB), once.
"""

import subprocess
import venv
from dataclasses import dataclass
from pathlib import Path

from bench.sdist import FOLDER, llama_cpp

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
    """Return llama.cpp's converter; whatever is not given is downloaded and installed, which takes minutes the first time."""
    return Reference(python or _environment(), llama_cpp(sdist) / "convert_hf_to_gguf.py")


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
