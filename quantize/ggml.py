"""ggml's own quantizers and type rules, called through ctypes; the only importer of llama_cpp in quantize/.

Struct layouts come from the bindings and from ggml.h of the llama.cpp that they carry, so only one release of them is accepted (bindings.py).
All row functions release Python's lock while they run and may be called from several threads.
"""

import ctypes
import errno
import os
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from quantize import bindings
from quantize.errors import QuantizeError
from quantize.ggml_types import GGMLQuantizationType, row_bytes

try:
    import llama_cpp
    import llama_cpp.llama_cpp as llama
except (
    ImportError,
    OSError,
    RuntimeError,
) as error:  # RuntimeError is what the bindings make of the loader's refusal
    if isinstance(error, OSError) and error.errno == errno.ENOMEM:
        raise MemoryError from error
    raise QuantizeError(
        f"llama.cpp cannot be loaded ({str(error).splitlines()[0]:.200}); run `mixcli doctor`, or raise the memory limit (ulimit -v)"
    ) from error

_TYPE_COUNT = 43  # GGML_TYPE_COUNT: "not set" in the parameters of llama_model_quantize
_log_lock = threading.Lock()


class _TypeTraits(ctypes.Structure):
    """struct ggml_type_traits of ggml.h."""

    _fields_ = (
        ("type_name", ctypes.c_char_p),
        ("blck_size", ctypes.c_int64),
        ("blck_size_interleave", ctypes.c_int64),
        ("type_size", ctypes.c_size_t),
        ("is_quantized", ctypes.c_bool),
        ("to_float", ctypes.CFUNCTYPE(None, ctypes.c_void_p, ctypes.c_void_p, ctypes.c_int64)),
        ("from_float_ref", ctypes.c_void_p),
    )


@cache
def _library() -> ctypes.CDLL:
    if wrong := bindings.mismatch(llama, llama_cpp.__version__):
        raise QuantizeError(wrong)
    library = ctypes.CDLL(str(bindings.library("ggml-base")))
    pointer, i64, size = ctypes.c_void_p, ctypes.c_int64, ctypes.c_size_t
    for name, result, arguments in (
        ("ggml_quantize_init", None, (ctypes.c_int,)),
        ("ggml_quantize_chunk", size, (ctypes.c_int, pointer, pointer, i64, i64, i64, pointer)),
        ("ggml_quantize_requires_imatrix", ctypes.c_bool, (ctypes.c_int,)),
        ("ggml_validate_row_data", ctypes.c_bool, (ctypes.c_int, pointer, size)),
        ("ggml_get_type_traits", ctypes.POINTER(_TypeTraits), (ctypes.c_int,)),
    ):
        function = getattr(library, name)
        function.restype, function.argtypes = result, arguments
    return library


def version() -> str:
    """Name the library whose bytes these functions give."""
    return f"llama-cpp-python {llama_cpp.__version__}"


def quantize_chunk(
    type_: GGMLQuantizationType, rows: NDArray[np.float32], imatrix: NDArray[np.float32] | None = None
) -> NDArray[np.uint8]:
    """Quantize whole rows; gives uint8 of shape (n_rows, bytes of a row).

    `rows` is float32 (n_rows, n_cols), `imatrix` float32 (n_cols,), the importance of each column. ValueError when the columns
    are not whole blocks, or when the type needs an imatrix and none is given (the library would abort the process).
    """
    rows = np.ascontiguousarray(rows, dtype=np.float32)
    n_rows, n_cols = rows.shape
    out = np.empty((n_rows, row_bytes(type_, n_cols)), dtype=np.uint8)
    weights = None
    if imatrix is not None:
        imatrix = np.ascontiguousarray(imatrix, dtype=np.float32)
        if imatrix.shape != (n_cols,):
            raise ValueError(
                f"an importance matrix of shape {imatrix.shape} does not fit rows of {n_cols} columns"
            )
        weights = imatrix.ctypes.data
    elif requires_imatrix(type_):
        raise ValueError(f"{type_.name} needs an importance matrix")
    written = _library().ggml_quantize_chunk(
        int(type_), rows.ctypes.data, out.ctypes.data, 0, n_rows, n_cols, weights
    )
    if written != out.nbytes:  # a type that the library does not write
        raise QuantizeError(
            f"llama.cpp wrote {written:,} of {out.nbytes:,} bytes as {type_.name}; choose another type"
        )
    return out


def dequantize(type_: GGMLQuantizationType, raw: NDArray[np.uint8], n_cols: int) -> NDArray[np.float32]:
    """Return the float32 weights (n_rows, n_cols) of rows that are stored as `raw`, uint8 (n_rows, bytes of a row)."""
    raw = np.ascontiguousarray(raw)
    n_rows = raw.shape[0]
    if raw.shape != (n_rows, row_bytes(type_, n_cols)):
        raise ValueError(f"{raw.shape} bytes are not rows of {n_cols} {type_.name} weights")
    if type_ == GGMLQuantizationType.F32:
        return raw.view(np.float32).reshape(n_rows, n_cols)
    to_float = _library().ggml_get_type_traits(int(type_)).contents.to_float
    if not to_float:
        raise QuantizeError(f"llama.cpp cannot read weights of type {type_.name}")
    out = np.empty((n_rows, n_cols), dtype=np.float32)
    to_float(raw.ctypes.data, out.ctypes.data, out.size)
    return out


def requires_imatrix(type_: GGMLQuantizationType) -> bool:
    """Return whether the library refuses to quantize to this type without an importance matrix."""
    return bool(_library().ggml_quantize_requires_imatrix(int(type_)))


def is_valid(type_: GGMLQuantizationType, raw: NDArray[np.uint8]) -> bool:
    """Return whether stored blocks hold only finite scales, by the library's own check."""
    with _no_words():
        return bool(_library().ggml_validate_row_data(int(type_), raw.ctypes.data, raw.nbytes))


@cache
def _c_stderr() -> tuple[ctypes.c_void_p, int | None, int | None] | None:
    """Return the variable in which C keeps its standard error, what it holds, and a stream to nowhere; None where it cannot be found."""
    c = ctypes.CDLL(None)
    name = "__stderrp" if sys.platform == "darwin" else "stderr"
    try:
        variable = ctypes.c_void_p.in_dll(c, name)
    except ValueError:
        return None
    c.fopen.restype = ctypes.c_void_p
    nowhere = c.fopen(os.devnull.encode(), b"w")
    return (variable, variable.value, nowhere) if nowhere else None


@contextmanager
def _no_words() -> Iterator[None]:
    """Keep from the terminal what the library prints beside its result; Python's own standard error is not touched."""
    found = _c_stderr()
    if found is None:
        yield
        return
    variable, own, nowhere = found
    variable.value = nowhere
    try:
        yield
    finally:
        variable.value = own


def prepare(type_: GGMLQuantizationType) -> None:
    """Build the library's lookup tables for a type once, so that threads need not wait for each other."""
    _library().ggml_quantize_init(int(type_))


def dry_run(
    path: Path,
    file_type: int,
    *,
    pure: bool,
    imatrix: bool,
    token_embedding_type: GGMLQuantizationType | None,
    output_tensor_type: GGMLQuantizationType | None,
    tensor_types: Sequence[tuple[str, GGMLQuantizationType]],
) -> str:
    """Let llama_model_quantize go through a file without writing anything; returns its log.

    Raises QuantizeError with the library's own last words when it refuses.
    """
    params = llama.llama_model_quantize_default_params()
    params.nthread, params.ftype, params.pure, params.dry_run = 1, file_type, pure, True
    params.allow_requantize = True
    params.token_embedding_type = _TYPE_COUNT if token_embedding_type is None else int(token_embedding_type)
    params.output_tensor_type = _TYPE_COUNT if output_tensor_type is None else int(output_tensor_type)
    entries = [(pattern.encode(), int(type_)) for pattern, type_ in tensor_types]
    overrides = (llama.llama_model_tensor_override * (len(entries) + 1))(*entries, (None, _TYPE_COUNT))
    params.tt_overrides = ctypes.cast(overrides, type(params.tt_overrides))
    nothing = (llama.llama_model_imatrix_data * 1)()  # only says that there is one: some types depend on it
    if imatrix:
        params.imatrix = ctypes.cast(nothing, type(params.imatrix))
    with _captured_log() as log:
        failed = llama.llama_model_quantize(str(path).encode(), b"", ctypes.byref(params))
    text = "".join(log)
    if failed:
        reasons = [line for line in text.splitlines() if "failed to quantize" in line]
        reason = reasons[-1].split("failed to quantize:", 1)[1].strip() if reasons else "no reason given"
        raise QuantizeError(f"llama.cpp cannot choose types for this model: {reason}")
    return text


@contextmanager
def _captured_log() -> Iterator[list[str]]:
    """Collect llama.cpp's log, then restore the previous log callback."""
    lines: list[str] = []

    def collect(_level: int, text: bytes, _data: ctypes.c_void_p) -> None:
        lines.append(text.decode("utf-8", "replace"))

    callback: Callable[..., Any] = llama.llama_log_callback(collect)
    before, data = llama.llama_log_callback(), ctypes.c_void_p()
    with _log_lock:
        llama.llama_log_get(ctypes.byref(before), ctypes.byref(data))
        llama.llama_log_set(callback, ctypes.c_void_p(0))
        try:
            yield lines
        finally:
            llama.llama_log_set(before, data)


__all__ = [
    "dequantize",
    "dry_run",
    "is_valid",
    "prepare",
    "quantize_chunk",
    "requires_imatrix",
    "version",
]
