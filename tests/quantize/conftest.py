"""What the tests of quantize/ share: llama.cpp's own answers as the oracle."""

import ctypes
import json
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

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


@pytest.fixture
def llama_quantize() -> Iterator[Callable[..., None]]:
    """Run llama_model_quantize itself: the oracle for every byte that the writer writes."""
    import llama_cpp.llama_cpp as llama

    def run(
        source: Path, target: Path, file_type: int, *, imatrix: dict[str, Any] | None = None, **options: Any
    ) -> None:
        params = llama.llama_model_quantize_default_params()
        params.nthread, params.ftype = 2, file_type
        for name, value in options.items():
            setattr(params, name, value)
        entries = [
            (name.encode(), as_floats(values), values.size) for name, values in (imatrix or {}).items()
        ]
        array = (llama.llama_model_imatrix_data * (len(entries) + 1))(*entries, (None, None, 0))
        if imatrix:
            params.imatrix = ctypes.cast(array, type(params.imatrix))
        assert (
            llama.llama_model_quantize(str(source).encode(), str(target).encode(), ctypes.byref(params)) == 0
        )

    def as_floats(values: Any) -> Any:
        return values.ctypes.data_as(ctypes.POINTER(ctypes.c_float))

    @llama.llama_log_callback
    def quiet(_level: int, _text: bytes, _data: Any) -> None:
        pass

    llama.llama_log_set(quiet, ctypes.c_void_p(0))
    yield run
    llama.llama_log_set(llama.llama_log_callback(), ctypes.c_void_p(0))
