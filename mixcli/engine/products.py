"""Measure how fast the processor multiplies with weights of a type, by the library that will compute: `python -m mixcli.engine.products`.

The order on stdin is {"types", "threads", "bytes"}: names of types, threads, bytes of a stack of eight experts. For each type as a file has it, and then for each that
llama.cpp repacks here, one JSON line is written as soon as it is measured: {"type", "repacked", "rates", "busy"}; "rates" is null where
the type is not repacked. A process of its own: kernels that do not suit a processor kill it, and what was written before remains.
"""

import ctypes
import json
import os
import sys
import time
from collections.abc import Iterator
from functools import cache
from itertools import takewhile
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mixcli.engine.ggml import device_pointers, load, set_buffer
from profiles.rates import FEW, MANY, N_EXPERT, N_USED
from quantize import ggml
from quantize.ggml_types import GGMLQuantizationType, row_bytes

N_COLS = 4096  # inputs of a matrix
N_POOL = 16  # rows that are quantized; a matrix repeats them
SECONDS = 0.06  # that one product is repeated, three times at least where it is quick
BUSY = 0.85  # of the processor's time that must have been ours, else other programs took part of it
F32, I32 = 0, 26
_META = 1 << 20  # bytes for the descriptions of tensors


class _Init(ctypes.Structure):
    """struct ggml_init_params of ggml.h."""

    _fields_ = (("mem_size", ctypes.c_size_t), ("mem_buffer", ctypes.c_void_p), ("no_alloc", ctypes.c_bool))


@cache
def _library() -> Any:
    library = load("ggml-base")
    pointer, size, number = ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int
    for name, result, arguments in (
        ("ggml_init", pointer, (_Init,)),
        ("ggml_free", None, (pointer,)),
        ("ggml_new_tensor", pointer, (pointer, number, number, ctypes.POINTER(ctypes.c_int64))),
        ("ggml_mul_mat", pointer, (pointer,) * 3),
        ("ggml_mul_mat_id", pointer, (pointer,) * 4),
        ("ggml_new_graph", pointer, (pointer,)),
        ("ggml_build_forward_expand", None, (pointer,) * 2),
        ("ggml_backend_alloc_ctx_tensors_from_buft", pointer, (pointer,) * 2),
        ("ggml_backend_buft_alloc_buffer", pointer, (pointer, size)),
        ("ggml_backend_buffer_free", None, (pointer,)),
        ("ggml_backend_tensor_set", None, (pointer, pointer, size, size)),
        ("ggml_backend_graph_compute", number, (pointer,) * 2),
        ("ggml_backend_dev_supports_op", ctypes.c_bool, (pointer,) * 2),
        ("ggml_backend_dev_init", pointer, (pointer, ctypes.c_char_p)),
        ("ggml_backend_dev_backend_reg", pointer, (pointer,)),
        ("ggml_backend_reg_get_proc_address", pointer, (pointer, ctypes.c_char_p)),
        ("ggml_backend_cpu_buffer_type", pointer, ()),
    ):
        function = getattr(library, name)
        function.restype, function.argtypes = result, arguments
    return library


class _Tensors:
    """Tensors of one buffer type; free them with `close`."""

    def __init__(self) -> None:
        self.context = _library().ggml_init(_Init(_META, None, True))
        self._buffer: int | None = None

    def new(self, type_: int, *shape: int) -> int:
        """Return a tensor; dimensions as ggml has them, the fastest first."""
        dims = (ctypes.c_int64 * len(shape))(*shape)
        return int(_library().ggml_new_tensor(self.context, type_, len(shape), dims))

    def allocate(self, buffer_type: int) -> None:
        """Allocate the memory of all of them; MemoryError when there is not enough."""
        self._buffer = _library().ggml_backend_alloc_ctx_tensors_from_buft(self.context, buffer_type)
        if not self._buffer:
            raise MemoryError("not enough memory to measure the processor")

    def close(self) -> None:
        if self._buffer:
            _library().ggml_backend_buffer_free(self._buffer)
        _library().ggml_free(self.context)


def _put(tensor: int, values: NDArray[Any]) -> None:
    _library().ggml_backend_tensor_set(tensor, values.ctypes.data, 0, values.nbytes)


class Processor:
    """The CPU backend with a number of threads, and the buffer types in which it keeps weights."""

    def __init__(self, n_threads: int) -> None:
        (self._device, *_) = device_pointers("cpu")
        self.backend = _library().ggml_backend_dev_init(self._device, None)
        set_threads = load("ggml-cpu").ggml_backend_cpu_set_n_threads
        set_threads.restype, set_threads.argtypes = None, [ctypes.c_void_p, ctypes.c_int]
        set_threads(self.backend, n_threads)
        self.plain = int(_library().ggml_backend_cpu_buffer_type())

    def repacking(self, type_: int, n_rows: int) -> int | None:
        """Return the buffer type in which llama.cpp repacks stacks of that type (llama-model.cpp, select_weight_buft); None for none."""
        return next((one for one in self._extra() if self._takes(type_, n_rows, one)), None)

    def _extra(self) -> Iterator[int]:
        registry = _library().ggml_backend_dev_backend_reg(self._device)
        name = b"ggml_backend_dev_get_extra_bufts"
        if not (address := _library().ggml_backend_reg_get_proc_address(registry, name)):
            return
        function = ctypes.CFUNCTYPE(ctypes.POINTER(ctypes.c_void_p), ctypes.c_void_p)(address)
        pointers: Any = function(self._device)
        if pointers:
            yield from takewhile(bool, pointers)  # NULL ends the list

    def _takes(self, type_: int, n_rows: int, buffer_type: int) -> bool:
        library, tensors = _library(), _Tensors()
        stack = tensors.new(type_, N_COLS, n_rows, N_EXPERT)
        inputs, ids = tensors.new(F32, N_COLS, 1, MANY), tensors.new(I32, N_USED, MANY)
        product = library.ggml_mul_mat_id(tensors.context, stack, inputs, ids)
        buffer = library.ggml_backend_buft_alloc_buffer(buffer_type, 0)
        set_buffer(stack, buffer)
        takes = bool(library.ggml_backend_dev_supports_op(self._device, product))
        set_buffer(stack, None)
        library.ggml_backend_buffer_free(buffer)
        tensors.close()
        return takes


class Stack:
    """Eight random experts of one type in one layout, and one more matrix of the same size."""

    def __init__(self, processor: Processor, type_: GGMLQuantizationType, n_rows: int, buffer: int) -> None:
        self._processor, self._random, self.n_rows = processor, np.random.default_rng(0), n_rows
        weights = self._random.standard_normal((N_POOL, N_COLS), np.float32) / np.float32(N_COLS**0.5)
        importance = np.ones(N_COLS, np.float32) if ggml.requires_imatrix(type_) else None
        rows = ggml.quantize_chunk(type_, weights, importance)
        data = np.tile(rows.reshape(-1), N_EXPERT * n_rows // N_POOL)
        self.n_bytes = data.nbytes
        self._tensors = _Tensors()
        self._experts = self._tensors.new(type_, N_COLS, n_rows, N_EXPERT)
        self._matrix = self._tensors.new(type_, N_COLS, n_rows)
        self._tensors.allocate(buffer)
        _put(self._experts, data)
        _put(self._matrix, data[: data.size // N_EXPERT])

    def close(self) -> None:
        self._tensors.close()

    def decode(self) -> float:
        """Return GB a second for one token at a time: every pair of experts in turn, so that caches hold none of them."""
        pairs = [np.array([[at, at + 1]], np.int32) for at in range(0, N_EXPERT, N_USED)]
        return self.n_bytes / self._seconds(1, pairs) / 1e9

    def experts(self, n_tokens: int) -> float:
        """Return TFLOP/s of a batch in which every token draws its experts."""
        drawn = [self._random.permutation(N_EXPERT)[:N_USED] for _ in range(n_tokens)]
        seconds = self._seconds(n_tokens, [np.array(drawn, np.int32)])
        return 2 * N_USED * n_tokens * self.n_rows * N_COLS / seconds / 1e12

    def dense(self, n_tokens: int) -> float:
        """Return TFLOP/s of a batch with one matrix."""
        return 2 * n_tokens * self.n_rows * N_COLS / self._seconds(n_tokens, []) / 1e12

    def _seconds(self, n_tokens: int, ids: list[NDArray[np.int32]]) -> float:
        """Return the least seconds for a product with each of these choices of experts; for none of them, with the one matrix."""
        library, tensors = _library(), _Tensors()
        graph = library.ggml_new_graph(tensors.context)
        chosen = [tensors.new(I32, N_USED, n_tokens) for _ in ids]
        inputs = tensors.new(F32, N_COLS, 1, n_tokens) if ids else tensors.new(F32, N_COLS, n_tokens)
        for one in chosen:
            product = library.ggml_mul_mat_id(tensors.context, self._experts, inputs, one)
            library.ggml_build_forward_expand(graph, product)
        if not ids:
            product = library.ggml_mul_mat(tensors.context, self._matrix, inputs)
            library.ggml_build_forward_expand(graph, product)
        tensors.allocate(self._processor.plain)
        _put(inputs, self._random.standard_normal(N_COLS * n_tokens, np.float32))
        for one, values in zip(chosen, ids, strict=True):
            _put(one, values)
        best, end, n = float("inf"), time.perf_counter() + SECONDS, 0
        while not n or time.perf_counter() < end:
            begin = time.perf_counter()
            if library.ggml_backend_graph_compute(self._processor.backend, graph):
                raise RuntimeError("llama.cpp could not compute the product")
            best = min(best, time.perf_counter() - begin)
            n += 1
        tensors.close()
        return best


def measure(type_: GGMLQuantizationType, n_bytes: int, n_threads: int, *, repacked: bool) -> dict[str, Any]:
    """Return the line of one type in one layout (see above); `n_bytes` is what eight experts have about."""
    processor = Processor(n_threads)
    n_rows = max(N_POOL, n_bytes // N_EXPERT // row_bytes(type_, N_COLS) // N_POOL * N_POOL)
    line: dict[str, Any] = {"type": type_.name, "repacked": repacked, "rates": None, "busy": False}
    buffer = processor.repacking(type_, n_rows) if repacked else processor.plain
    if buffer is None:
        return line
    stack = Stack(processor, type_, n_rows, buffer)
    begin, used = time.perf_counter(), time.process_time()
    rates = [stack.decode()]
    for product in (stack.experts, stack.dense):
        rates += [product(FEW), product(MANY)]
    share = (time.process_time() - used) / (time.perf_counter() - begin) / n_threads
    stack.close()
    return {**line, "rates": [round(rate, 4) for rate in rates], "busy": share < BUSY}


def main() -> None:
    """Read the order, write the lines."""
    if os.name == "posix":
        import resource

        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    order = json.loads(sys.stdin.read())
    for repacked in (False, True):
        for name in order["types"]:
            type_ = GGMLQuantizationType[name]
            line = measure(type_, order["bytes"], order["threads"], repacked=repacked)
            sys.stdout.write(json.dumps(line) + "\n")
            sys.stdout.flush()


if __name__ == "__main__":
    main()
