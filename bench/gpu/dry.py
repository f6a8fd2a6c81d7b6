"""All steps without a card: an environment as bare as the machine of the card is, what was packed for it, and an RPC worker as the card.

The environment has nothing but pip and numpy. Without pip's index there are no wheels to pack: then the packed source is not compiled, and the other
steps run in this environment, with the library that it has.
"""

import argparse
import os
import shutil
import subprocess
import sys
from importlib.metadata import version
from pathlib import Path

from bench.gpu import build, device, pack

CHECK = "import importlib.metadata as m, llama_cpp; print(llama_cpp.__file__, llama_cpp.__version__, m.version('llama-cpp-python'))"


def main(options: argparse.Namespace) -> int:
    folder, steps = options.folder, ["build", "models", "same", "measure"]
    try:
        if pack.main(options):
            return 1
        python = bare(folder / "bare")
    except subprocess.CalledProcessError:
        print("pip's index does not answer, so neither wheels nor the build are rehearsed", flush=True)
        build.unpack(folder / "packed", folder / "source")
        python = Path(sys.executable)
        shutil.rmtree(folder / "site", ignore_errors=True)
        steps.remove("build")
    if shutil.which("nvcc"):
        print(f"nvcc compiles {device.compile_cuda(folder).name}.cu")
    (folder / "result.json").unlink(missing_ok=True)
    for step in steps:
        print(f"bench.gpu {step}", flush=True)
        command = [
            str(python),
            "-m",
            "bench.gpu",
            step,
            "--stand-in",
            "--folder",
            str(folder),
            "--seconds",
            "240",
        ]
        command += ["--demo", str(options.demo)] if options.demo else []
        env = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
        while (
            code := subprocess.run(command, env=env, cwd=build.ROOT, check=False).returncode
        ) == build.AGAIN:
            pass
        if code == 0 and step == "build":
            code = checked(python, folder / "site")
        if code:
            print(f"bench.gpu {step} ends with {code}")
            return code
    return 0


def bare(place: Path) -> Path:
    """Make an environment with pip and numpy, once; gives its Python."""
    python = place / "bin" / "python"
    if not python.is_file():
        subprocess.run([sys.executable, "-m", "virtualenv", "--quiet", str(place)], check=True)
    numpy = f"numpy=={version('numpy')}"
    subprocess.run([str(python), "-m", "pip", "install", "-qq", numpy], check=True)
    return python


def checked(python: Path, site: Path) -> int:
    """Import the library that was made, and see that it is that one and has the version that is asked for."""
    env = {**os.environ, "PYTHONPATH": str(site)}
    said = subprocess.run([str(python), "-c", CHECK], env=env, check=True, capture_output=True, text=True)
    file, own, installed = said.stdout.split()
    good = Path(file).is_relative_to(site) and own == installed == version("llama-cpp-python")
    print(f"llama_cpp {own} comes from {file}", flush=True)
    return int(not good)
