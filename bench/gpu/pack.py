"""What travels to a machine without a network: the source of llama-cpp-python without what a CUDA build never reads, and small wheels.

Left out are models, documents, tests, programs and the backends of other makers, 80 % of the source. Mistral's vocabulary goes along,
for the synthetic models.
"""

import importlib.util
import subprocess
import sys
import tarfile
from pathlib import Path

BACKENDS = ("ggml-cpu", "ggml-cuda", "ggml-rpc")
# parts of llama.cpp that CMakeLists.txt names only behind options that are off here, or that nothing names
NEEDLESS = (
    "app", "benches", "ci", "docs", "examples", "gguf-py", "grammars", "licenses", "media", "models", "pocs", "requirements",
    "scripts", "skills", "tests", "tools", "conversion",
)  # fmt: skip
WHEELS = ("click", "platformdirs", "diskcache", "llguidance", "fastapi", "starlette", "uvicorn", "gguf")
VOCABULARY = "tokenizer.model.v1"


def wanted(name: str) -> bool:
    """Say whether a file of the source distribution travels; `name` is its path below the distribution's root."""
    below = name.partition("vendor/llama.cpp/")[2]
    if not below:
        return "/.git" not in name
    top, _, rest = below.partition("/")
    if top in NEEDLESS or top.startswith("."):
        return False
    if top == "ggml" and rest.startswith("src/ggml-"):
        part = rest.removeprefix("src/").partition("/")
        return not part[1] or part[0] in BACKENDS
    return not below.endswith((".gguf", ".png", ".svg", ".md"))


def pack(sdist: Path, target: Path, *, wheels: bool) -> int:
    """Write the trimmed distribution and what goes with it into `target`; gives the bytes of all. `wheels` asks pip's index for them."""
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
    if wheels:
        pip = [sys.executable, "-m", "pip", "--quiet", "download", "--no-deps", "--only-binary", ":all:"]
        subprocess.run([*pip, "--dest", str(target / "wheels"), *WHEELS], check=True)
    return sum(file.stat().st_size for file in target.rglob("*") if file.is_file())


def fetch(folder: Path, release: str) -> Path:
    """Download the source distribution of that release, once."""
    found = folder / f"llama_cpp_python-{release}.tar.gz"
    if not found.is_file():
        folder.mkdir(parents=True, exist_ok=True)
        pip = [
            sys.executable,
            "-m",
            "pip",
            "--quiet",
            "download",
            "--no-deps",
            "--no-binary",
            "llama-cpp-python",
        ]
        subprocess.run([*pip, "--dest", str(folder), f"llama-cpp-python=={release}"], check=True)
    return found
