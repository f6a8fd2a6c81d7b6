"""Query NVIDIA's driver: GPU names, memory, and peak rates.

Rates are the hardware's own limits, computed from what the driver knows of every card, so that a plan for a card that no profile names is
as good as for one that is named.
"""

import contextlib
import shutil
import subprocess
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from mixcli.system import wsl

PCI = Path("/sys/bus/pci/devices")
DISPLAYS = ("0x0300", "0x0302")  # PCI classes: VGA and 3D controllers; a card's sound has another
CUDA_WHEELS = (132, 130, 125, 124, 123, 122, 121)  # what the bindings' own index has
SMI_SECONDS = 20  # seconds for nvidia-smi to answer
CLOCK_SM, CLOCK_MEMORY = 1, 2  # nvmlClockType_t
LANE_GBS = {1: 0.25, 2: 0.5, 3: 0.985, 4: 1.969, 5: 3.938, 6: 7.563}  # PCIe, by generation
LINK_EFFICIENCY = 0.76  # of that, what copies reach
CLOCK_HELD = 0.8  # of the highest clock, what cards hold under such work
# operations a clock of one CUDA core's share of its tensor cores, 16 bits with sums of 32 (NVIDIA's architecture papers)
CORE_OPS = {70: 16, 72: 16, 75: 8, 80: 32, 86: 4, 87: 4, 89: 4, 90: 32, 100: 64, 103: 64, 120: 4, 121: 4}


@dataclass(frozen=True)
class Card:
    """A GPU as its driver names it; memory in bytes, GB/s of it and of the way to it, TFLOP/s in 16 bits. A rate of 0 is not known."""

    name: str
    bytes_total: int
    bandwidth: float = 0.0
    link: float = 0.0
    tflops: float = 0.0


def driver_cards() -> list[Card]:
    """List the cards by NVML, or by nvidia-smi where nvidia-ml-py is not installed; empty when there is no driver."""
    try:
        import pynvml

        pynvml.nvmlInit()
        return [
            _card(pynvml, pynvml.nvmlDeviceGetHandleByIndex(i)) for i in range(pynvml.nvmlDeviceGetCount())
        ]
    except ImportError:
        return _smi_cards()
    except Exception:  # NVML's own errors: no driver, no permission
        return []


def has_card() -> bool:
    """Return whether an NVIDIA GPU is on the PCI bus, whatever its driver does; False where the system does not tell."""
    for device in PCI.glob("*"):
        with contextlib.suppress(OSError):
            vendor, kind = (device / name for name in ("vendor", "class"))
            if vendor.read_text("ascii").strip() == "0x10de" and kind.read_text("ascii").startswith(DISPLAYS):
                return True
    return False


def cuda_wheel() -> int:
    """Return the newest of the bindings' CUDA wheels that the driver can run; 125 where it does not say."""
    try:
        import pynvml

        version = int(pynvml.nvmlSystemGetCudaDriverVersion()) // 10  # 12050 -> 1205
        newest = version // 100 * 10 + version % 100
        return next((wheel for wheel in CUDA_WHEELS if wheel <= newest), CUDA_WHEELS[-1])
    except Exception:  # not installed, or no driver
        return 125


def bandwidth(clock_mhz: float, bus_bits: float) -> float:
    """Return GB/s of a card's memory: two transfers a clock over all lines, as drivers count clocks."""
    return 2 * clock_mhz * 1e6 * bus_bits / 8 / 1e9


def link(generation: int, lanes: int) -> float:
    """Return GB/s that copies over PCIe reach; 0 for a generation that is not known."""
    return LANE_GBS.get(generation, 0.0) * lanes * LINK_EFFICIENCY


def tflops(n_cores: int, clock_mhz: float, capability: int) -> float:
    """Return TFLOP/s of the tensor cores in 16 bits from the highest clock; 0 for a compute capability (such as 89) that is not known."""
    return n_cores * CLOCK_HELD * clock_mhz * 1e6 * CORE_OPS.get(capability, 0) / 1e12


def _card(nvml: Any, handle: Any) -> Card:
    name = nvml.nvmlDeviceGetName(handle)
    text = name.decode("utf-8", "replace") if isinstance(name, bytes) else name
    card = Card(text, int(nvml.nvmlDeviceGetMemoryInfo(handle).total))
    with contextlib.suppress(Exception):  # an old driver, or a card that does not tell
        major, minor = nvml.nvmlDeviceGetCudaComputeCapability(handle)
        clock_sm, clock_memory = (
            nvml.nvmlDeviceGetMaxClockInfo(handle, which) for which in (CLOCK_SM, CLOCK_MEMORY)
        )
        lanes = nvml.nvmlDeviceGetMaxPcieLinkWidth(handle)
        return replace(
            card,
            bandwidth=bandwidth(clock_memory, nvml.nvmlDeviceGetMemoryBusWidth(handle)),
            link=link(nvml.nvmlDeviceGetMaxPcieLinkGeneration(handle), lanes),
            tflops=tflops(nvml.nvmlDeviceGetNumGpuCores(handle), clock_sm, 10 * major + minor),
        )
    return card


def _smi_cards() -> list[Card]:
    smi = shutil.which("nvidia-smi") or shutil.which("nvidia-smi", path=wsl.LIBRARIES)
    if smi is None:
        return []
    query = [smi, "--query-gpu=name,memory.total", "--format=csv,noheader,nounits"]
    try:
        done = subprocess.run(query, capture_output=True, text=True, check=False, timeout=SMI_SECONDS)
    except (OSError, subprocess.SubprocessError):  # a driver that hangs counts as missing
        return []
    rows = [line.rsplit(",", 1) for line in done.stdout.splitlines() if "," in line]
    return [Card(name.strip(), int(mib) << 20) for name, mib in rows if mib.strip().isdigit()]
