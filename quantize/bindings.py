"""The one release of llama-cpp-python that structs are declared for, and the check that it is the one installed.

ctypes takes a struct's layout from the declarations in Python: with another release, fields would be read from the wrong places in silence.
"""

import ctypes
from collections.abc import Mapping
from types import ModuleType

VERSION = "0.3.36"  # pyproject.toml pins it; .ci/setup compiles it
INSTALL = f"pip install llama-cpp-python=={VERSION}"

# sizeof in bytes on a 64-bit machine, as this release declares them (llama.h), of the structs that mixcli fills or reads
STRUCTS = {
    "llama_model_params": 80,
    "llama_context_params": 160,
    "llama_batch": 56,
    "llama_token_data": 12,
    "llama_token_data_array": 32,
    "llama_sampler_chain_params": 1,
}


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
