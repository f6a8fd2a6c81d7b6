"""What the tests of quantize/ share: llama.cpp's own answers as the oracle."""

import ctypes
import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest


@pytest.fixture(scope="session")
def python_imports() -> Callable[[str], set[str]]:
    """Give the top-level modules that importing one module in a fresh interpreter brings in."""

    def imports(module: str) -> set[str]:
        code = f"import sys, json, {module}; print(json.dumps(sorted(m.split('.')[0] for m in sys.modules)))"
        run = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
        return set(json.loads(run.stdout))

    return imports


@pytest.fixture
def ggml_accepts(tmp_path: Path) -> Callable[[bytes], bool]:
    """Ask ggml's own GGUF reader whether it takes a file."""
    import llama_cpp

    class Params(ctypes.Structure):
        _fields_ = (("no_alloc", ctypes.c_bool), ("ctx", ctypes.c_void_p))

    library = ctypes.CDLL(str(Path(llama_cpp.__file__).parent / "lib" / "libggml-base.so.0"))
    library.gguf_init_from_file.restype = ctypes.c_void_p
    library.gguf_init_from_file.argtypes = [ctypes.c_char_p, Params]
    library.gguf_free.argtypes = [ctypes.c_void_p]

    def accepts(data: bytes) -> bool:
        path = tmp_path / "asked.gguf"
        path.write_bytes(data)
        context = library.gguf_init_from_file(str(path).encode(), Params(True, None))
        if context:
            library.gguf_free(context)
        return bool(context)

    return accepts
