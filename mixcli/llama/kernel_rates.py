"""Measure matrix products of each weight type on this CPU with ggml, as a child process: `python -m mixcli.llama.kernel_rates`.

A ProductOrder comes on stdin. For attention and each type as a file has it, and then for each that llama.cpp repacks here, one
ProductLine is written as soon as it is measured (both are in mixcli/system/measurements.py). A process of its own: kernels that do not
suit a processor kill it, and what was written before remains.

An expert has its true size, because a layout that walks over it once for every token is as fast as the cache that holds it. One token is
decoded with all three matrices of an expert: the one that goes back, four times as wide as the others, takes up to half as long again for
a byte in some types. A batch is
spread over eight experts by a random choice of two for each token, as a router does: two experts alone stay in a large cache, and measured
a quarter faster than the eight of a model.
"""

import ctypes
import sys
import time
from collections.abc import Iterator
from dataclasses import asdict
from functools import cache
from itertools import takewhile
from statistics import median
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mixcli.llama.ggml import device_pointers, load, set_buffer
from mixcli.system import child_limits
from mixcli.system.measurements import ProductLine, ProductOrder
from profiles.rates import ATTENTION, BATCHES, MANY, N_EXPERT, N_USED, ProductRates
from quantize import ggml
from quantize.ggml_types import GGMLQuantizationType

N_COLS = 4096  # inputs of an expert
N_POOL = 16  # rows that are quantized; a matrix repeats them
N_DENSE = 128  # tokens of the largest batch with one matrix: more is as fast, and takes longer
SECONDS = 0.05  # that one product is repeated
N_TIMES, LONG = (
    3,
    0.25,
)  # so often at least, unless that takes longer than so many seconds: once is a matter of luck
BUSY = 0.85  # of the processor's time that must have been ours, else other programs took part of it
F32, F16, I32 = 0, 1, 26
HEAD, N_HEAD, N_HEAD_KV, N_CELLS = 128, 32, 8, 1024  # of the attention that is measured
_META = 1 << 20  # bytes for the descriptions of tensors


class _Init(ctypes.Structure):
    """struct ggml_init_params of ggml.h."""

    _fields_ = (("mem_size", ctypes.c_size_t), ("mem_buffer", ctypes.c_void_p), ("no_alloc", ctypes.c_bool))


@cache
def ggml_library() -> Any:
    """Return ggml with the signatures of what is called here."""
    library = load("ggml-base")
    pointer, size, number = ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int
    for name, result, arguments in (
        ("ggml_init", pointer, (_Init,)),
        ("ggml_free", None, (pointer,)),
        ("ggml_new_tensor", pointer, (pointer, number, number, ctypes.POINTER(ctypes.c_int64))),
        ("ggml_mul_mat", pointer, (pointer,) * 3),
        ("ggml_mul_mat_id", pointer, (pointer,) * 4),
        ("ggml_permute", pointer, (pointer, pointer, *(number,) * 4)),
        ("ggml_cont", pointer, (pointer,) * 2),
        ("ggml_soft_max_ext", pointer, (*(pointer,) * 3, *(ctypes.c_float,) * 2)),
        ("ggml_flash_attn_ext", pointer, (*(pointer,) * 5, *(ctypes.c_float,) * 3)),
        ("ggml_new_graph", pointer, (pointer,)),
        ("ggml_build_forward_expand", None, (pointer,) * 2),
        ("ggml_backend_alloc_ctx_tensors_from_buft", pointer, (pointer,) * 2),
        ("ggml_backend_buft_alloc_buffer", pointer, (pointer, size)),
        ("ggml_backend_buffer_free", None, (pointer,)),
        ("ggml_backend_tensor_set", None, (pointer, pointer, size, size)),
        ("ggml_backend_tensor_get", None, (pointer, pointer, size, size)),
        ("ggml_backend_graph_compute", number, (pointer,) * 2),
        ("ggml_backend_dev_supports_op", ctypes.c_bool, (pointer,) * 2),
        ("ggml_backend_dev_init", pointer, (pointer, ctypes.c_char_p)),
        ("ggml_backend_dev_buffer_type", pointer, (pointer,)),
        ("ggml_backend_buft_name", ctypes.c_char_p, (pointer,)),
        ("ggml_backend_free", None, (pointer,)),
        ("ggml_backend_dev_backend_reg", pointer, (pointer,)),
        ("ggml_backend_reg_get_proc_address", pointer, (pointer, ctypes.c_char_p)),
        ("ggml_backend_cpu_buffer_type", pointer, ()),
    ):
        function = getattr(library, name)
        function.restype, function.argtypes = result, arguments
    return library


class GraphTensors:
    """Tensors of one buffer type; free them with `close`."""

    def __init__(self) -> None:
        self.context = ggml_library().ggml_init(_Init(_META, None, True))
        self._buffer: int | None = None

    def new(self, type_: int, *shape: int) -> int:
        """Return a tensor; dimensions as ggml has them, the fastest first."""
        dims = (ctypes.c_int64 * len(shape))(*shape)
        return int(ggml_library().ggml_new_tensor(self.context, type_, len(shape), dims))

    def allocate(self, buffer_type: int) -> None:
        """Allocate the memory of all of them; MemoryError when there is not enough."""
        self._buffer = ggml_library().ggml_backend_alloc_ctx_tensors_from_buft(self.context, buffer_type)
        if not self._buffer:
            raise MemoryError("not enough memory to measure the CPU")

    def close(self) -> None:
        if self._buffer:
            ggml_library().ggml_backend_buffer_free(self._buffer)
        ggml_library().ggml_free(self.context)


def put(tensor: int, values: NDArray[Any], offset: int = 0) -> None:
    """Write values to a tensor, `offset` bytes after its beginning."""
    ggml_library().ggml_backend_tensor_set(tensor, values.ctypes.data, offset, values.nbytes)


def _short(rate: float) -> float:
    return float(f"{rate:.3g}")


class Processor:
    """The CPU backend with a number of threads, and the buffer types in which it keeps weights."""

    def __init__(self, n_threads: int) -> None:
        self._n_threads = n_threads
        self.computing = self.used = 0.0  # seconds, and those of all cores that were ours
        (self._device, *_) = device_pointers("cpu")
        self.backend = ggml_library().ggml_backend_dev_init(self._device, None)
        set_threads = self._function(b"ggml_backend_set_n_threads", None, ctypes.c_void_p, ctypes.c_int)
        if set_threads is None:
            raise RuntimeError("this llama.cpp build cannot set the number of threads")
        set_threads(self.backend, n_threads)
        self.plain = int(ggml_library().ggml_backend_cpu_buffer_type())

    def repacking(self, type_: int, n_cols: int, n_rows: int) -> int | None:
        """Return the buffer type in which llama.cpp repacks stacks of that type (llama-model.cpp, select_weight_buft); None for none."""
        return next((one for one in self._extra() if self._takes(type_, n_cols, n_rows, one)), None)

    def seconds(self, graph: int) -> float:
        """Compute a graph again and again; returns the median seconds, or the least where other programs took part of the processor."""
        found: list[float] = []
        used, start = time.process_time(), time.perf_counter()
        enough, passed, is_shared = SECONDS, 0.0, False
        while passed < enough or (len(found) < N_TIMES and passed < LONG):
            begin = time.perf_counter()
            if ggml_library().ggml_backend_graph_compute(self.backend, graph):
                raise RuntimeError("llama.cpp could not compute the product")
            found.append(time.perf_counter() - begin)
            passed = time.perf_counter() - start
            is_shared = self._is_shared(time.process_time() - used, passed)
            # one moment that is ours is enough: look for it twice as long
            enough = 2 * max(SECONDS, min(found)) if is_shared else SECONDS
        self.computing += passed
        self.used += time.process_time() - used
        return min(found) if is_shared else median(found)

    @property
    def is_shared(self) -> bool:
        """Return whether other programs took part of the processor while it computed."""
        return self._is_shared(self.used, self.computing)

    def _is_shared(self, used: float, passed: float) -> bool:
        return used < BUSY * passed * self._n_threads

    def _extra(self) -> Iterator[int]:
        name = b"ggml_backend_dev_get_extra_bufts"
        get = self._function(name, ctypes.POINTER(ctypes.c_void_p), ctypes.c_void_p)
        pointers: Any = get and get(self._device)
        if pointers:
            yield from takewhile(bool, pointers)  # NULL ends the list

    def _function(self, name: bytes, result: Any, *arguments: Any) -> Any:
        """Return a function of the backend by its name, wherever its library is; None when it has none of that name."""
        registry = ggml_library().ggml_backend_dev_backend_reg(self._device)
        address = ggml_library().ggml_backend_reg_get_proc_address(registry, name)
        return ctypes.CFUNCTYPE(result, *arguments)(address) if address else None

    def _takes(self, type_: int, n_cols: int, n_rows: int, buffer_type: int) -> bool:
        library, tensors = ggml_library(), GraphTensors()
        stack = tensors.new(type_, n_cols, n_rows, N_USED)
        inputs, ids = tensors.new(F32, n_cols, 1, MANY), tensors.new(I32, N_USED, MANY)
        product = library.ggml_mul_mat_id(tensors.context, stack, inputs, ids)
        buffer = library.ggml_backend_buft_alloc_buffer(buffer_type, 0)
        set_buffer(stack, buffer)
        takes = bool(library.ggml_backend_dev_supports_op(self._device, product))
        set_buffer(stack, None)
        library.ggml_backend_buffer_free(buffer)
        tensors.close()
        return takes


class Stack:
    """Random experts of one type in one layout, more than a cache holds, and one more matrix of the same size."""

    def __init__(
        self,
        processor: Processor,
        type_: GGMLQuantizationType,
        n_cols: int,
        n_rows: int,
        n_bytes: int,
        buffer: int,
    ) -> None:
        self._processor, self._random = processor, np.random.default_rng(0)
        self._n_cols, self._n_rows = n_cols, n_rows
        weights = self._random.standard_normal((N_POOL, n_cols), np.float32) / np.float32(n_cols**0.5)
        importance = np.ones(n_cols, np.float32) if ggml.requires_imatrix(type_) else None
        rows = ggml.quantize_chunk(type_, weights, importance)
        expert = np.tile(rows.reshape(-1), n_rows // N_POOL)
        self._n_expert = max(N_EXPERT, N_USED * -(-n_bytes // (N_USED * expert.nbytes)))
        self._n_bytes = self._n_expert * expert.nbytes
        self._tensors = GraphTensors()
        self._experts = self._tensors.new(type_, n_cols, n_rows, self._n_expert)
        self._matrix = self._tensors.new(type_, n_cols, n_rows)
        self._tensors.allocate(buffer)
        if buffer == processor.plain:
            for number in range(self._n_expert):
                put(self._experts, expert, number * expert.nbytes)
        else:
            put(self._experts, np.tile(expert, self._n_expert))  # a layout is made of a whole tensor
        put(self._matrix, expert)

    def close(self) -> None:
        self._tensors.close()

    def decode(self) -> float:
        """Return GB/s for one token at a time: every pair of experts in turn, so that caches hold none of them."""
        pairs = [np.array([[at, at + 1]], np.int32) for at in range(0, self._n_expert, N_USED)]
        return _short(self._n_bytes / self._seconds(1, pairs) / 1e9)

    def experts(self, n_tokens: int) -> float:
        """Return TFLOP/s of a batch of which every token draws two of eight experts."""
        routes = self._random.permuted(np.tile(np.arange(N_EXPERT, dtype=np.int32), (n_tokens, 1)), axis=1)
        chosen = np.ascontiguousarray(routes[:, :N_USED])
        return _short(self._operations(N_USED * n_tokens) / self._seconds(n_tokens, [chosen]))

    def dense(self, n_tokens: int) -> float:
        """Return TFLOP/s of a batch with one matrix."""
        return _short(self._operations(n_tokens) / self._seconds(n_tokens, []))

    def _operations(self, n_rows: int) -> float:
        return 2 * n_rows * self._n_rows * self._n_cols / 1e12

    def _seconds(self, n_tokens: int, ids: list[NDArray[np.int32]]) -> float:
        """Return the least seconds for a product with each of these choices of experts; for none of them, with the one matrix."""
        library, tensors = ggml_library(), GraphTensors()
        graph = library.ggml_new_graph(tensors.context)
        chosen = [tensors.new(I32, N_USED, n_tokens) for _ in ids]
        inputs = (
            tensors.new(F32, self._n_cols, 1, n_tokens) if ids else tensors.new(F32, self._n_cols, n_tokens)
        )
        for one in chosen:
            product = library.ggml_mul_mat_id(tensors.context, self._experts, inputs, one)
            library.ggml_build_forward_expand(graph, product)
        if not ids:
            product = library.ggml_mul_mat(tensors.context, self._matrix, inputs)
            library.ggml_build_forward_expand(graph, product)
        tensors.allocate(self._processor.plain)
        put(inputs, self._random.standard_normal(self._n_cols * n_tokens, np.float32))
        for one, values in zip(chosen, ids, strict=True):
            put(one, values)
        seconds = self._processor.seconds(graph)
        tensors.close()
        return seconds


def attention(processor: Processor, n_tokens: int, *, flash: bool) -> float:
    """Return TFLOP/s of the products of Mixtral's attention with a cache of N_CELLS, masked ones not counted (llama-graph.cpp, build_attn_mha)."""
    library, tensors, random = ggml_library(), GraphTensors(), np.random.default_rng(0)
    graph = library.ggml_new_graph(tensors.context)
    q = tensors.new(F32, HEAD, N_HEAD, n_tokens)
    k = tensors.new(F16, HEAD, N_HEAD_KV, N_CELLS)
    v = tensors.new(F16, *((HEAD, N_HEAD_KV, N_CELLS) if flash else (N_CELLS, HEAD, N_HEAD_KV)))
    mask = tensors.new(F16 if flash else F32, N_CELLS, n_tokens)

    def heads(tensor: int) -> int:
        return int(library.ggml_permute(tensors.context, tensor, 0, 2, 1, 3))

    scale = HEAD**-0.5
    if flash:
        result = library.ggml_flash_attn_ext(
            tensors.context, heads(q), heads(k), heads(v), mask, scale, 0.0, 0.0
        )
    else:
        scores = library.ggml_mul_mat(tensors.context, heads(k), heads(q))
        shares = library.ggml_soft_max_ext(tensors.context, scores, mask, scale, 0.0)
        result = heads(library.ggml_mul_mat(tensors.context, v, shares))
        result = library.ggml_cont(tensors.context, result)
    library.ggml_build_forward_expand(graph, result)
    tensors.allocate(processor.plain)
    put(q, random.standard_normal(HEAD * N_HEAD * n_tokens, np.float32))
    for values in (k, v):
        put(values, random.standard_normal(HEAD * N_HEAD_KV * N_CELLS, np.float32).astype(np.float16))
    seen = np.arange(N_CELLS)[None, :] <= (N_CELLS - n_tokens + np.arange(n_tokens))[:, None]
    put(mask, np.where(seen, 0.0, -np.inf).astype(np.float16 if flash else np.float32))
    seconds = processor.seconds(graph)
    tensors.close()
    return _short(4 * HEAD * N_HEAD * float(seen.sum()) / seconds / 1e12)


def measure(
    type_: GGMLQuantizationType, n_rows: int, n_bytes: int, processor: Processor, *, repacked: bool
) -> ProductRates | None:
    """Return the rates of one type in one layout, of experts with `n_rows` inside; None when it is not repacked here."""
    buffers = [
        processor.repacking(type_, n_cols, n_out) if repacked else processor.plain
        for n_cols, n_out in ((N_COLS, n_rows), (n_rows, N_COLS))
    ]
    into, back = buffers
    if into is None:
        return None
    stack = Stack(processor, type_, n_rows, N_COLS, n_bytes, back or processor.plain)
    slow = stack.decode()
    stack.close()
    stack = Stack(processor, type_, N_COLS, n_rows, n_bytes, into)
    decode = _short(3 / (2 / stack.decode() + 1 / slow))  # gate and up, and down
    few, some, many = (stack.experts(n) for n in BATCHES)
    few_dense, some_dense, many_dense = (stack.dense(min(n, N_DENSE)) for n in BATCHES)  # more is as fast
    stack.close()
    return ProductRates(decode, (few, some, many), (few_dense, some_dense, many_dense))


def main() -> None:
    """Read the order, write the lines."""
    child_limits.no_core_dump()
    order = ProductOrder.from_json(sys.stdin.read())
    processor = Processor(order.threads)
    rates: Any
    for second in (False, True):
        for name in sorted(order.types, key=lambda one: one != ATTENTION):  # every plan needs attention's
            processor.computing = processor.used = 0.0
            if name == ATTENTION:
                rates = [attention(processor, n, flash=second) for n in (1, MANY)]
            else:
                type_ = GGMLQuantizationType[name]
                measured = measure(type_, order.rows, order.bytes, processor, repacked=second)
                rates = asdict(measured) if measured else None
            line = ProductLine(name, second, rates, processor.is_shared)
            sys.stdout.write(line.to_json() + "\n")
            sys.stdout.flush()


if __name__ == "__main__":
    main()
