"""Compile a small C++ program with llama.cpp's headers, linked to libraries of it that are there already: a minute instead of ten."""

import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

HEADERS = ("common", "include", "ggml/include", "vendor")


def compiled(
    sources: Sequence[Path], root: Path, folder: Path, libraries: Sequence[str], target: Path, *flags: str
) -> Path:
    """Compile `sources` into the program `target` with the headers of llama.cpp's tree `root`, linked to `libraries` in `folder`.

    `libraries` are as a linker takes them ("-lllama"). The program is there once it is whole. SystemExit with the compiler's words.
    """
    part = target.with_name(f"{target.name}.part")
    where = folder if target.parent != folder else "@loader_path" if sys.platform == "darwin" else "$ORIGIN"
    command = [
        "g++",
        "-std=c++17",
        "-O1",
        "-w",
        *flags,
        *(f"-I{root / name}" for name in HEADERS),
        *map(str, sources),
        f"-L{folder}",
        f"-Wl,-rpath,{where}",
        *libraries,
        "-lpthread",
        "-o",
        str(part),
    ]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise SystemExit(f"{target.name} did not compile: {done.stderr[-2000:]}")
    return part.replace(target)
