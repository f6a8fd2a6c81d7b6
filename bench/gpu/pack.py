"""What travels to a machine without a network: the source of llama-cpp-python without what a CUDA build never reads, and wheels.

Left out are models, documents, tests, programs and the backends of other makers, 80 % of the source. Mistral's vocabulary goes along,
for the synthetic models. Of the wheels numpy stays here: it is large, and a machine with CUDA's libraries has it.
"""

import argparse
import importlib.util
import platform
import shutil
import subprocess
import sys
import tarfile
import tomllib
from pathlib import Path

from bench.gpu import build
from bench.sdist import fetch

LIMIT = 60 << 20
LLAMA_CPP = "vendor/llama.cpp/"
BACKENDS = ("ggml-cpu", "ggml-cuda", "ggml-rpc")
# parts of llama.cpp that CMakeLists.txt names only behind options that are off here, or that nothing names
NEEDLESS = (
    "app", "benches", "ci", "docs", "examples", "gguf-py", "grammars", "licenses", "media", "models", "pocs", "requirements",
    "scripts", "skills", "tests", "tools", "conversion",
)  # fmt: skip
NEEDLESS_ABOVE = (".", "docker/", "docs/", "examples/", "scripts/", "tests/")  # the bindings' own
NOT_PACKED = ("llama-cpp-python", "numpy")
# beside what mixcli itself depends on: what builds the bindings, and what they need
BUILDS = ("scikit-build-core", "diskcache", "typing-extensions")
MANYLINUX = ("_2_39", "_2_35", "_2_34", "_2_31", "_2_28", "_2_27", "_2_24", "_2_17", "2014", "1")
VOCABULARY = "tokenizer.model.v1"


def main(options: argparse.Namespace) -> int:
    packed = options.folder / "packed"
    pack_source(options.sdist or fetch(options.folder / "sdist"), packed)
    pack_wheels(packed / "wheels", options.python)
    if options.arch:
        pack_build(options.folder, options.arch)
    n_bytes = sum(file.stat().st_size for file in packed.rglob("*") if file.is_file())
    print(f"{packed}: {n_bytes / 2**20:.1f} MiB travel, of {LIMIT >> 20} at most", flush=True)
    return int(n_bytes > LIMIT)


def wanted(name: str) -> bool:
    """Return whether a file of the source distribution travels; `name` is its path below the distribution's root."""
    if not name.startswith(LLAMA_CPP):
        return not name.startswith(NEEDLESS_ABOVE)
    below = name.removeprefix(LLAMA_CPP)
    top, _, rest = below.partition("/")
    if top in NEEDLESS or top.startswith("."):
        return False
    if top == "ggml" and rest.startswith("src/ggml-"):
        part = rest.removeprefix("src/").partition("/")
        return not part[1] or part[0] in BACKENDS
    return not below.endswith((".gguf", ".png", ".svg", ".md"))


def pack_source(sdist: Path, target: Path) -> None:
    """Write the trimmed distribution and the vocabulary into `target`."""
    target.mkdir(parents=True, exist_ok=True)
    with tarfile.open(sdist) as source, tarfile.open(target / "llama-cpp-python.tar.gz", "w:gz") as small:
        for member in source:
            if member.isfile() and wanted(member.name.partition("/")[2]):
                small.addfile(member, source.extractfile(member))
    spec = importlib.util.find_spec("mistral_common")
    if spec is None or spec.origin is None:
        raise SystemExit("mistral_common, which has the vocabulary, is not installed; run `make setup`")
    vocabulary = target / "mistral_common" / "data" / VOCABULARY
    vocabulary.parent.mkdir(parents=True, exist_ok=True)
    (target / "mistral_common" / "__init__.py").touch()
    vocabulary.write_bytes((Path(spec.origin).parent / "data" / VOCABULARY).read_bytes())


def pack_build(folder: Path, arch: str) -> None:
    """Compile the packed source here, for a card that is elsewhere: with nvcc, which needs no card, time there goes to measuring."""
    source = build.unpack(folder / "packed", folder / "elsewhere" / "source")
    made = build.wheel(source, folder / "elsewhere", build.cmake_args(arch, elsewhere=True), None)
    assert made is not None
    shutil.copy2(made, folder / "packed" / "wheels")


def pack_wheels(target: Path, python: str | None = None) -> None:
    """Ask pip's index for all wheels that are needed, for another version of Python when one is named. CalledProcessError without an index."""
    project = tomllib.loads(Path("pyproject.toml").read_text("utf-8"))["project"]
    needs = [need for need in project["dependencies"] if not need.startswith(NOT_PACKED)]
    machine = platform.machine()
    for_python = [] if python is None else ["--implementation", "cp", "--python-version", python]
    for_python += [f"--platform=manylinux{tag}_{machine}" for tag in MANYLINUX if python is not None]
    part = target.with_name("wheels.part")
    shutil.rmtree(part, ignore_errors=True)
    pip = [sys.executable, "-m", "pip", "-qq", "download", "--only-binary", ":all:", *for_python]
    subprocess.run([*pip, "--dest", str(part), *needs, *BUILDS], check=True)
    for file in part.glob("numpy-*.whl"):
        file.unlink()
    shutil.rmtree(target, ignore_errors=True)
    part.rename(target)
