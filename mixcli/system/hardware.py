"""Detect this machine: available memory, usable cores, GPUs, memory bandwidth.

llama.cpp itself lists the GPUs, in a process of its own; where it was built without them, the driver lists the unused ones.
"""

import hashlib
import importlib.util
import json
import os
import platform
import threading
import time
from collections.abc import Sequence
from dataclasses import replace
from datetime import date
from pathlib import Path

from mixcli.errors import MixcliError, NotReachable, UsageError
from mixcli.system import control_groups, json_cache, macos, python_child, wsl
from mixcli.system.device_facts import DeviceFacts
from mixcli.system.nvidia import cuda_wheel, driver_cards
from profiles.machine import Gpu, Machine
from profiles.profile_files import card
from quantize.parallel import in_parallel

PROC = Path("/proc")
DEVICES = Path("/sys/devices")  # where Linux describes its processors
FAST_ENOUGH = 0.7  # of the fastest core's capacity: a slower one holds the others up in every matrix product
GPU_LIBRARIES = ("ggml-cuda", "ggml-hip", "ggml-metal", "ggml-vulkan", "ggml-sycl")
KIND_OF_NAME = (
    ("RPC", "rpc"),
    ("CUDA", "cuda"),
    ("ROCm", "rocm"),
    ("Vulkan", "vulkan"),
    ("Metal", "metal"),
    ("MTL", "metal"),
)
WHEEL_INDEX = "https://abetlen.github.io/llama-cpp-python/whl"
TOLD = {
    error.exit_code: error for error in (UsageError, NotReachable)
}  # errors of a worker that the child may report
DEVICE_SECONDS = 60.0  # for llama.cpp to see all devices, and as much again for each worker
RESERVE_GPU = 512 << 20  # the driver's context and what fragmentation costs
RESERVE_WSL = (
    1 << 30
)  # Windows' desktop and programs take more while a model runs; its driver then moves ours to host memory, slowly
RESERVE_WORKER = 256 << 20
PROBE_SECONDS = 0.5
PROBE_BYTES = 64 << 20
MAX_FILLING = (
    60.0  # seconds for all threads to have filled their memory; fewer than all begin where Ctrl-C comes
)
NETWORK_LINK = 0.1  # GB/s to a worker where that was not measured: a gigabit


def this_machine(workers: Sequence[str] = ()) -> Machine:
    """Detect memory, cores and GPUs now; `workers` are HOST:PORT of machines whose memory is used too.

    Raises NotReachable when a worker does not answer.
    """
    gpus = tuple(_gpu(device) for device in devices(workers) if device.kind in ("gpu", "igpu"))
    unified = any(gpu.kind == "metal" for gpu in gpus)
    free = memory_free()
    return Machine(
        bytes_free=free,
        bytes_reserved=max(0, memory_total() - free),
        n_cores=physical_cores(),
        gpus=tuple(sorted(gpus, key=lambda gpu: gpu.kind != "rpc")),  # llama.cpp takes workers first
        unified=unified,
        bandwidth=known_bandwidth() or Machine.bandwidth,
        workers=tuple(workers),
        memory_setting=wsl.SETTING if wsl.version() == 2 else "",
    )


def devices(workers: Sequence[str] = ()) -> list[DeviceFacts]:
    """List llama.cpp's devices; only the processor when this build knows no other and there are no workers."""
    if not workers and not gpu_backends():
        return []
    done = python_child.run(
        "-m", "mixcli.llama.devices", *workers, seconds=DEVICE_SECONDS * (1 + len(workers))
    )
    if done.timed_out and workers:
        raise NotReachable(
            f"the worker {' or '.join(workers)} did not respond within {DEVICE_SECONDS * (1 + len(workers)):.0f} s; restart `mixcli worker` there"
        )
    if not done.succeeded:
        raise MixcliError(f"llama.cpp crashed while listing GPUs ({done.last_words}); run `mixcli doctor`")
    found = json.loads(done.out)
    if isinstance(found, dict):
        raise TOLD.get(found["exit_code"], MixcliError)(found["error"])
    return [DeviceFacts(**one) for one in found]


def _gpu(device: DeviceFacts) -> Gpu:
    kind = next((kind for part, kind in KIND_OF_NAME if device.name.startswith(part)), "vulkan")
    reserve = RESERVE_WORKER if kind == "rpc" else RESERVE_WSL if wsl.version() else RESERVE_GPU
    free = max(0, device.bytes_free - reserve)
    if kind == "rpc":
        return Gpu(
            device.buffer_type,
            free,
            kind,
            device.description,
            bandwidth=40.0,
            link=device.network_gbs or NETWORK_LINK,
            tflops=0.5,
            round_trip=device.round_trip,
        )
    gpu = Gpu(device.buffer_type, free, kind, device.description)
    if known := card(gpu.description):
        gpu = replace(gpu, bandwidth=known.bandwidth_gbs, link=known.link_gbs, tflops=known.tflops)
    if kind == "cuda":
        own = next((one for one in driver_cards() if one.name == gpu.description), None)
        for rate in ("bandwidth", "link", "tflops") if own else ():
            gpu = replace(gpu, **{rate: getattr(own, rate) or getattr(gpu, rate)})
    return gpu


def library_identity() -> list[tuple[str, int]]:
    """Name llama.cpp's library files with their sizes: another build has others."""
    spec = importlib.util.find_spec("llama_cpp")
    if spec is None or spec.origin is None:
        return []
    return sorted((path.name, path.stat().st_size) for path in (Path(spec.origin).parent / "lib").iterdir())


def gpu_backends() -> list[str]:
    """Name the GPU backends that this build of llama.cpp has, from its library files."""
    files = [name for name, _ in library_identity()]
    return [stem.removeprefix("ggml-") for stem in GPU_LIBRARIES if any(stem in name for name in files)]


def has_rpc() -> bool:
    """Return whether this build of llama.cpp can use workers and be one."""
    return any("ggml-rpc" in name for name, _ in library_identity())


def unused_cards() -> str | None:
    """Return how to use NVIDIA GPUs that are there and that this build of llama.cpp cannot use; None when all is well."""
    if "cuda" in gpu_backends():
        return None
    cards = driver_cards()
    if not cards:
        return None
    names = ", ".join(f"{one.name} ({one.bytes_total / (1 << 30):.0f} GiB)" for one in cards)
    return (
        f"{names} cannot be used: llama.cpp was installed without CUDA; run: "
        f"pip install --force-reinstall --no-deps --only-binary :all: llama-cpp-python --extra-index-url {WHEEL_INDEX}/cu{cuda_wheel()}"
    )


def unused_cards_today() -> str | None:
    """Return unused_cards() at most once a day; None where CUDA_VISIBLE_DEVICES hides all cards. The driver may take seconds to answer."""
    if os.environ.get("CUDA_VISIBLE_DEVICES") in ("", "-1"):
        return None
    today = date.today().isoformat()
    if json_cache.load("notices").get("unused_cards") == today:
        return None
    json_cache.update("notices", lambda found: found.update(unused_cards=today))
    return unused_cards()


def processor() -> tuple[str, str]:
    """Return the lines by which Linux describes the processor's model and what it can do; elsewhere what Python knows of it."""
    lines = (_text(PROC / "cpuinfo") or "").splitlines()
    model = next((line for line in lines if line.startswith("model name")), platform.processor())
    return model, next((line for line in lines if line.startswith(("flags", "Features"))), "")


def this_computer() -> str:
    """Name this machine for what is remembered of it: folders of one home may be used on several, and a disk be moved to another."""
    parts = [platform.machine(), processor()[0], physical_cores(), round(memory_total() / (1 << 30))]
    return hashlib.sha256(json.dumps(parts).encode()).hexdigest()[:16]


def known_bandwidth() -> float | None:
    """Return the measured bandwidth of host memory in GB/s, None when it was never measured."""
    rate = json_cache.load("bandwidth").get(this_computer())
    return float(rate) if json_cache.is_number(rate, above=0, below=json_cache.MAX_GBS) else None


def measured_bandwidth() -> float:
    """Measure how fast all cores together read memory, in GB/s, and remember it for estimates."""
    rate = memory_bandwidth()
    json_cache.update("bandwidth", lambda found: found.update({this_computer(): round(rate, 1)}))
    return rate


def memory_bandwidth() -> float:
    """Measure how fast all cores together read memory, in GB/s; half a second."""
    import numpy as np

    cores = physical_cores()
    filled = threading.Barrier(cores, timeout=MAX_FILLING)

    def read(_: int) -> float:
        data = np.ones(PROBE_BYTES // 8)
        filled.wait()  # the first access to memory is slow, and not measured
        n_bytes, start = 0, time.perf_counter()
        while (seconds := time.perf_counter() - start) < PROBE_SECONDS:
            data.max()
            n_bytes += data.nbytes
        return n_bytes / seconds

    return sum(rate for _, rate in in_parallel(read, range(cores), cores, joins=False)) / 1e9


def memory_free() -> int:
    """Return the bytes that a new process can have: the kernel's estimate, within the limits of our control groups."""
    free = _meminfo("MemAvailable") or macos.memory_free() or _physical_memory()
    return min((free, *(limit.free for limit in control_groups.memory_limits(PROC))))


def memory_total() -> int:
    """Return the bytes of host memory, within the limits of our control groups."""
    total = _meminfo("MemTotal") or _physical_memory()
    return min((total, *(limit.n_bytes for limit in control_groups.memory_limits(PROC))))


def _physical_memory() -> int:
    return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")


def physical_cores() -> int:
    """Return the number of cores that this process may use and that help.

    Hyper-threads are counted once: a second thread on a core adds nothing to matrix products. Of a hybrid processor only the fast cores count.
    """
    if n_cores := macos.fast_cores():
        return n_cores
    usable = os.sched_getaffinity(0) if hasattr(os, "sched_getaffinity") else set(range(os.cpu_count() or 1))
    siblings = {
        _text(DEVICES / f"system/cpu/cpu{cpu}/topology/thread_siblings_list") or str(cpu)
        for cpu in fast_cores(usable)
    }
    return min(len(siblings), control_groups.cpu_quota(PROC) or len(siblings))


def fast_cores(usable: set[int]) -> set[int]:
    """Leave out the slow cores of a hybrid processor: Intel's E-cores, and ARM's small ones by their capacity."""
    performance = _cpu_list(_text(DEVICES / "cpu_core/cpus") or "") & usable
    if performance:
        return performance
    capacity = {cpu: _number(DEVICES / f"system/cpu/cpu{cpu}/cpu_capacity") or 0 for cpu in usable}
    least = FAST_ENOUGH * max(capacity.values(), default=0)
    return {cpu for cpu in usable if capacity[cpu] >= least}


def _cpu_list(text: str) -> set[int]:
    """Read Linux's list of processors, such as 0-7,16."""
    found: set[int] = set()
    for part in text.split(","):
        first, _, last = part.strip().partition("-")
        if first.isdigit() and (last or first).isdigit():
            found |= set(range(int(first), int(last or first) + 1))
    return found


def _meminfo(key: str) -> int | None:
    for line in (_text(PROC / "meminfo") or "").splitlines():
        if line.startswith(f"{key}:"):
            return int(line.split()[1]) * 1024
    return None


def _number(path: Path) -> int | None:
    text = _text(path)
    return int(text) if text and text.isdigit() else None


def _text(path: Path) -> str | None:
    try:
        return path.read_text().strip()
    except OSError:
        return None
