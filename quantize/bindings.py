"""The one release of llama-cpp-python that structs are declared for, and the check that it is the one installed.

ctypes takes a struct's layout from the declarations in Python: with another release, fields would be read from the wrong places in silence.
"""

import ctypes
import importlib.util
from collections.abc import Mapping
from pathlib import Path
from types import ModuleType

from quantize.errors import QuantizeError

VERSION = "0.3.36"  # pyproject.toml pins it; .ci/setup compiles it
INSTALL = f"pip install llama-cpp-python=={VERSION}"

SUFFIXES = (".so.0", ".so", ".0.dylib", ".dylib", ".dll")  # the one that the others are linked to comes first

# sizeof in bytes on a 64-bit machine, as this release declares them (llama.h), of the structs that mixcli fills or reads
STRUCTS = {
    "llama_model_params": 80,
    "llama_context_params": 160,
    "llama_batch": 56,
    "llama_token_data": 12,
    "llama_token_data_array": 32,
    "llama_sampler_chain_params": 1,
}


def library_folder() -> Path:
    """Return the folder of the compiled libraries without importing the bindings; QuantizeError where they are not installed."""
    spec = importlib.util.find_spec("llama_cpp")
    if spec is None or spec.origin is None:
        raise QuantizeError(f"llama-cpp-python is not installed; run `make setup`, or {INSTALL}")
    return Path(spec.origin).parent / "lib"


def library(stem: str) -> Path:
    """Return the file of one of the libraries by its stem ("ggml-base", "llama"); QuantizeError when this build does not have it.

    A wheel may carry a library under several names; the others are linked to the one with a version, and a second copy would be another library.
    """
    folder = library_folder()
    for name in (*(f"lib{stem}{end}" for end in SUFFIXES), f"{stem}.dll"):
        if (folder / name).exists():
            return folder / name
    raise QuantizeError(f"{folder} has no {stem} library; reinstall llama-cpp-python")


def wrong_release(version: str) -> str | None:
    """Return one sentence on an installed release that is not VERSION, else None."""
    if version == VERSION:
        return None
    return f"llama-cpp-python {version} is installed, but mixcli needs {VERSION}; run `{INSTALL}`"


def mismatch(bindings: ModuleType, version: str, structs: Mapping[str, int] = STRUCTS) -> str | None:
    """Return one sentence on what is installed if it is not VERSION with its structs, else None.

    `bindings` is the module llama_cpp.llama_cpp, `version` that of the package.
    """
    if wrong := wrong_release(version):
        return wrong
    for name, n_bytes in structs.items():
        struct = getattr(bindings, name, None)
        found = ctypes.sizeof(struct) if struct is not None else 0
        if found != n_bytes:
            return f"llama-cpp-python {version} declares {name} with {found} bytes instead of {n_bytes}; run `{INSTALL} --force-reinstall`"
    return None
