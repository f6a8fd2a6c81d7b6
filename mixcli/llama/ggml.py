"""Direct bindings to ggml: devices, buffer types, and the values of a tensor.

The bindings wrap libllama only. These are ctypes declarations over the very library files that libllama is linked to: another
copy of the same library (the wheel holds three of each) would have a device registry of its own, without any device.
"""

import ctypes
from collections.abc import Callable
from functools import cache

import numpy as np
from numpy.typing import NDArray

from mixcli.errors import MixcliError
from mixcli.system.device_facts import DeviceFacts
from quantize import bindings
from quantize.errors import QuantizeError

DEVICE_KINDS = ("cpu", "gpu", "igpu", "accel", "meta")

# ggml_type of the types whose values numpy can show as they are
DTYPES = {0: np.float32, 1: np.float16, 24: np.int8, 25: np.int16, 26: np.int32, 27: np.int64, 28: np.float64}

# name on the command line: ggml_type, for the types that a KV cache can have
KV_TYPES = {
    "f32": 0,
    "f16": 1,
    "bf16": 30,
    "q8_0": 8,
    "q4_0": 2,
    "q4_1": 3,
    "iq4_nl": 20,
    "q5_0": 6,
    "q5_1": 7,
}


# the operations of a product with weights: of one matrix, and of the matrices of a stack that ids choose
MATMUL, MATMUL_OF_EXPERTS = "MUL_MAT", "MUL_MAT_ID"


class TensorHead(ctypes.Structure):
    """The first fields of ggml_tensor: type, buffer, elements and strides (bytes) a dimension, fastest first, operation and operands."""

    _fields_ = [
        ("type", ctypes.c_int),
        ("buffer", ctypes.c_void_p),
        ("ne", ctypes.c_int64 * 4),
        ("nb", ctypes.c_size_t * 4),
        ("op", ctypes.c_int),
        ("op_params", ctypes.c_int32 * 16),
        ("flags", ctypes.c_int32),
        ("src", ctypes.c_void_p * 10),
    ]


@cache
def load(stem: str) -> ctypes.CDLL:
    """Load one of the libraries by its stem; MixcliError when this build does not have it."""
    try:
        return ctypes.CDLL(str(bindings.library(stem)))
    except QuantizeError as error:
        raise MixcliError(str(error)) from error


@cache
def _base() -> ctypes.CDLL:
    lib = load("ggml-base")
    pointer, size_p = ctypes.c_void_p, ctypes.POINTER(ctypes.c_size_t)
    for name, restype, argtypes in (
        ("ggml_backend_dev_name", ctypes.c_char_p, [pointer]),
        ("ggml_backend_dev_description", ctypes.c_char_p, [pointer]),
        ("ggml_backend_dev_type", ctypes.c_int, [pointer]),
        ("ggml_backend_dev_memory", None, [pointer, size_p, size_p]),
        ("ggml_backend_dev_buffer_type", pointer, [pointer]),
        ("ggml_backend_dev_host_buffer_type", pointer, [pointer]),
        ("ggml_backend_cpu_buffer_type", pointer, []),
        ("ggml_backend_buft_name", ctypes.c_char_p, [pointer]),
        ("ggml_backend_buffer_is_host", ctypes.c_bool, [pointer]),
        ("ggml_backend_tensor_get", None, [pointer, pointer, ctypes.c_size_t, ctypes.c_size_t]),
        ("ggml_get_data", pointer, [pointer]),
        ("ggml_get_name", ctypes.c_char_p, [pointer]),
        ("ggml_op_name", ctypes.c_char_p, [ctypes.c_int]),
        ("ggml_nbytes", ctypes.c_size_t, [pointer]),
    ):
        function = getattr(lib, name)
        function.restype, function.argtypes = restype, argtypes
    return lib


def _device_pointers() -> list[int]:
    registry = load("ggml")
    registry.ggml_backend_dev_count.restype = ctypes.c_size_t
    registry.ggml_backend_dev_get.restype = ctypes.c_void_p
    registry.ggml_backend_dev_get.argtypes = [ctypes.c_size_t]
    return [registry.ggml_backend_dev_get(i) for i in range(registry.ggml_backend_dev_count())]


def device_pointers(*kinds: str) -> list[int]:
    """Return ggml's pointers of the devices of these kinds, in its order."""
    lib = _base()
    return [p for p in _device_pointers() if DEVICE_KINDS[lib.ggml_backend_dev_type(p)] in kinds]


def register(registry: int) -> None:
    """Add a backend's devices to those that llama.cpp uses."""
    lib = load("ggml")
    lib.ggml_backend_register.restype, lib.ggml_backend_register.argtypes = None, [ctypes.c_void_p]
    lib.ggml_backend_register(registry)


_KEPT: list[object] = []  # callbacks that ggml may call until the process ends


class _DeviceHead(ctypes.Structure):
    """The first functions of ggml_backend_device_i, with which a ggml_backend_device begins."""

    _fields_ = [
        ("get_name", ctypes.c_void_p),
        ("get_description", ctypes.c_void_p),
        ("get_memory", ctypes.c_void_p),
    ]


_MEMORY = ctypes.CFUNCTYPE(
    None, ctypes.c_void_p, ctypes.POINTER(ctypes.c_size_t), ctypes.POINTER(ctypes.c_size_t)
)


def report_memory(pointer: int, memory: Callable[[], tuple[int, int]]) -> None:
    """Let a device report these bytes (free, total) as its memory, from any thread: ggml takes all memory of a processor as free."""

    def tell(
        _: int, free: "ctypes._Pointer[ctypes.c_size_t]", total: "ctypes._Pointer[ctypes.c_size_t]"
    ) -> None:
        free[0], total[0] = (ctypes.c_size_t(n_bytes) for n_bytes in memory())

    callback = _MEMORY(tell)
    _KEPT.append(callback)
    head = _DeviceHead.from_address(pointer)
    head.get_memory = ctypes.cast(callback, ctypes.c_void_p).value


_ABORT = ctypes.CFUNCTYPE(None, ctypes.c_char_p)


def on_abort(tell: Callable[[str], None]) -> None:
    """Let ggml call this, in any thread, with its reason before it aborts the process; in place of what it prints."""
    lib = load("ggml-base")
    lib.ggml_set_abort_callback.restype, lib.ggml_set_abort_callback.argtypes = ctypes.c_void_p, [_ABORT]
    callback = _ABORT(lambda message: tell(message.decode("utf-8", "replace")))
    _KEPT.append(callback)
    lib.ggml_set_abort_callback(callback)


def devices(wanted: Callable[[str], bool] = lambda _: True) -> list[DeviceFacts]:
    """List the devices in llama.cpp's order, with the memory that is free now.

    Only those are asked whose buffer type is `wanted`: a question costs a worker a round trip, and a CUDA device some of its memory.
    """
    lib, found = _base(), []
    for pointer in _device_pointers():
        buffer_type = lib.ggml_backend_buft_name(lib.ggml_backend_dev_buffer_type(pointer)).decode()
        if not wanted(buffer_type):
            continue
        free, total = ctypes.c_size_t(), ctypes.c_size_t()
        lib.ggml_backend_dev_memory(pointer, ctypes.byref(free), ctypes.byref(total))
        found.append(
            DeviceFacts(
                name=lib.ggml_backend_dev_name(pointer).decode(),
                description=lib.ggml_backend_dev_description(pointer).decode("utf-8", "replace"),
                kind=DEVICE_KINDS[lib.ggml_backend_dev_type(pointer)],
                bytes_free=free.value,
                bytes_total=total.value,
                buffer_type=buffer_type,
            )
        )
    return found


def buffer_types() -> dict[str, int]:
    """Map the names that a tensor override may use ("CPU", "CUDA0", "CUDA_Host", ...) to ggml's buffer type pointers."""
    lib = _base()
    pointers = [lib.ggml_backend_cpu_buffer_type()]
    for device in _device_pointers():
        pointers += [lib.ggml_backend_dev_buffer_type(device), lib.ggml_backend_dev_host_buffer_type(device)]
    names: dict[str, int] = {}
    for pointer in filter(None, pointers):
        names.setdefault(lib.ggml_backend_buft_name(pointer).decode(), pointer)
    return names


def tensor_name(tensor: int) -> str:
    """Return the name of a ggml tensor (a pointer as cb_eval hands it over)."""
    name: bytes = _base().ggml_get_name(tensor)
    return name.decode("utf-8", "replace")


def head(tensor: int) -> TensorHead:
    """Return a view of a tensor's first fields."""
    return TensorHead.from_address(tensor)


@cache
def _matmul_ops() -> dict[int, str]:
    """Map ggml's numbers of the products with weights to their names; the numbers change between releases."""
    names = {number: _base().ggml_op_name(number).decode() for number in range(64)}
    return {number: name for number, name in names.items() if name in (MATMUL, MATMUL_OF_EXPERTS)}


def matmul_op(tensor: int) -> str | None:
    """Return MATMUL or MATMUL_OF_EXPERTS for the result of such a product, None for any other tensor."""
    return _matmul_ops().get(TensorHead.from_address(tensor).op)


def sources(tensor: int) -> list[int]:
    """Return the pointers of a tensor's operands."""
    return [pointer for pointer in TensorHead.from_address(tensor).src if pointer]


def tensor_values(tensor: int, *, is_borrowed: bool = False) -> "NDArray[np.generic]":
    """Copy a tensor's values into a numpy array in numpy order (ggml's fastest dimension last), trailing ones dropped.

    A view keeps its strides until the copy, so a strided result such as `ffn_moe_topk` comes out right. With `is_borrowed` values in host
    memory are not copied: the array shows them, with their strides, until the graph continues. Raises MixcliError for a quantized type.
    """
    head = TensorHead.from_address(tensor)
    if head.type not in DTYPES:
        raise MixcliError(
            f"tensor {tensor_name(tensor)} has ggml type {head.type}, which has no numpy equivalent"
        )
    lib = _base()
    n_bytes = lib.ggml_nbytes(tensor)
    n_dims = max((i + 1 for i in range(4) if head.ne[i] != 1), default=1)
    shape, strides = tuple(head.ne[:n_dims])[::-1], tuple(head.nb[:n_dims])[::-1]
    if is_borrowed and head.buffer and lib.ggml_backend_buffer_is_host(head.buffer):
        data = (ctypes.c_char * n_bytes).from_address(lib.ggml_get_data(tensor))
        return np.ndarray(shape, DTYPES[head.type], buffer=data, strides=strides)
    copy = np.empty(n_bytes, np.uint8)
    lib.ggml_backend_tensor_get(tensor, copy.ctypes.data, 0, n_bytes)
    return np.ascontiguousarray(np.ndarray(shape, DTYPES[head.type], buffer=copy.data, strides=strides))


def set_buffer(tensor: int, buffer: int | None) -> None:
    """Enter the buffer that a tensor is in, without memory there: enough to ask a device what it supports."""
    TensorHead.from_address(tensor).buffer = buffer
