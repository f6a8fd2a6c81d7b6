"""Measure how fast a GPU, or a worker's device, reads its memory: a large matrix times one vector, as decode does it."""

import ctypes
import time
from collections.abc import Sequence
from statistics import median

from mixcli.errors import MixcliError
from mixcli.llama.ggml import device_pointers
from mixcli.llama.kernel_rates import F16, F32, GraphTensors, ggml_library

N_COLS = 4096
SECONDS = 0.3  # that the product is repeated
SIZES = (1 << 29, 1 << 27, 1 << 25)  # bytes of the matrix: the largest that there is memory for
N_PRODUCTS = 8  # that are computed at once, so that starting and waiting hardly count
N_WARM = 2  # such rounds that are not counted: the first ones start the device


def gpu_bandwidths(names: Sequence[str], sizes: Sequence[int] = SIZES) -> dict[str, float]:
    """Return GB/s by name for devices whose memory has these names ("CUDA0"); a device without free memory is left out."""
    library = ggml_library()
    found = {}
    for pointer in device_pointers("gpu", "igpu"):
        name = library.ggml_backend_buft_name(library.ggml_backend_dev_buffer_type(pointer)).decode()
        if name in names and (rate := device_bandwidth(pointer, sizes)):
            found[name] = rate
    return found


def device_bandwidth(device: int, sizes: Sequence[int] = SIZES, seconds: float = SECONDS) -> float | None:
    """Return the GB/s that a device (ggml's pointer) reads, of the first size that there is memory for; None without any."""
    library = ggml_library()
    backend = library.ggml_backend_dev_init(device, None)
    if not backend:
        return None
    try:
        rates = (_rate(device, backend, n_bytes, seconds) for n_bytes in sizes)
        return next((rate for rate in rates if rate), None)
    finally:
        library.ggml_backend_free(backend)


def _rate(device: int, backend: int, n_bytes: int, at_least: float) -> float | None:
    library, tensors = ggml_library(), GraphTensors()
    try:
        graph = library.ggml_new_graph(tensors.context)
        matrix = tensors.new(F16, N_COLS, n_bytes // (2 * N_COLS))
        products = [
            library.ggml_mul_mat(tensors.context, matrix, tensors.new(F32, N_COLS)) for _ in range(N_PRODUCTS)
        ]
        for product in products:
            library.ggml_build_forward_expand(graph, product)
        try:
            tensors.allocate(library.ggml_backend_dev_buffer_type(device))
        except MemoryError:
            return None
        seconds: list[float] = []
        end = time.perf_counter() + at_least
        while len(seconds) <= N_WARM or time.perf_counter() < end:
            begin = time.perf_counter()
            if library.ggml_backend_graph_compute(backend, graph):
                raise MixcliError("llama.cpp could not compute a product to measure the memory of a device")
            _wait(products[-1])
            seconds.append(time.perf_counter() - begin)
        return N_PRODUCTS * n_bytes / median(seconds[N_WARM:]) / 1e9
    finally:
        tensors.close()


def _wait(tensor: int) -> None:
    """Wait until a tensor is computed: a worker answers before it has computed, so a value is fetched."""
    value = ctypes.c_float()
    ggml_library().ggml_backend_tensor_get(tensor, ctypes.addressof(value), 0, ctypes.sizeof(value))
