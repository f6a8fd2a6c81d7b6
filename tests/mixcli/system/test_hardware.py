"""What is read of a machine, by the code that reads it, from facts that were recorded on machines that are not here."""

import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest

from mixcli.system import hardware, json_cache, nvidia
from profiles.profile_files import card
from tests.conftest import Runner

# what nvidia-ml-py answers on a machine with one RTX 4090 and a driver for CUDA 12.4
NVML = SimpleNamespace(
    nvmlInit=lambda: None,
    nvmlDeviceGetCount=lambda: 1,
    nvmlDeviceGetHandleByIndex=lambda index: index,
    nvmlDeviceGetName=lambda _handle: "NVIDIA GeForce RTX 4090",
    nvmlDeviceGetMemoryInfo=lambda _handle: SimpleNamespace(total=25757220864),
    nvmlSystemGetCudaDriverVersion=lambda: 12040,
    nvmlDeviceGetCudaComputeCapability=lambda _handle: (8, 9),
    nvmlDeviceGetMaxClockInfo=lambda _handle, clock: {1: 3105, 2: 10501}[clock],
    nvmlDeviceGetMemoryBusWidth=lambda _handle: 384,
    nvmlDeviceGetMaxPcieLinkGeneration=lambda _handle: 4,
    nvmlDeviceGetMaxPcieLinkWidth=lambda _handle: 8,
    nvmlDeviceGetNumGpuCores=lambda _handle: 16384,
)
SMI = "#!/bin/sh\necho 'NVIDIA GeForce RTX 3090, 24576'\n"


@pytest.fixture
def without_cuda(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hardware, "gpu_backends", lambda: ["rpc"])


def test_what_was_measured_of_a_machine_says_nothing_of_another(
    home: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Of a home on a file server, or a disk that was moved."""
    here = hardware.measured_bandwidth()
    assert hardware.known_bandwidth() == pytest.approx(here, abs=0.1)
    (tmp_path / "proc").mkdir()
    (tmp_path / "proc/cpuinfo").write_text("model name\t: Another Processor\n")
    monkeypatch.setattr(hardware, "PROC", tmp_path / "proc")
    assert hardware.known_bandwidth() is None


@pytest.mark.usefixtures("without_cuda")
def test_a_4090_that_this_build_cannot_use_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pynvml", NVML)
    note = hardware.unused_cards()
    assert note is not None
    assert "NVIDIA GeForce RTX 4090 (24 GiB) cannot be used" in note
    assert "pip install --force-reinstall --no-deps --only-binary :all: llama-cpp-python" in note
    assert note.endswith("/whl/cu124")


@pytest.mark.usefixtures("without_cuda")
def test_nvidia_smi_answers_where_the_package_is_missing(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setitem(sys.modules, "pynvml", None)
    (tmp_path / "nvidia-smi").write_text(SMI)
    (tmp_path / "nvidia-smi").chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    assert nvidia.driver_cards() == [nvidia.Card("NVIDIA GeForce RTX 3090", 24576 << 20)]
    note = hardware.unused_cards()
    assert note is not None
    assert note.endswith("/whl/cu125")


@pytest.mark.skipif("cuda" in hardware.gpu_backends(), reason="this build uses the cards")
def test_an_unused_card_is_noted_once_a_day_where_a_model_is_planned(tmp_path: Path, mixcli: Runner) -> None:
    (tmp_path / "nvidia-smi").write_text(SMI)
    (tmp_path / "nvidia-smi").chmod(0o755)
    (tmp_path / "pynvml.py").write_text("raise ImportError")
    path = {"PATH": f"{tmp_path}:/usr/bin:/bin", "PYTHONPATH": str(tmp_path), "CUDA_VISIBLE_DEVICES": "0"}
    ask = ("plan", "mistral:Q4_K_M", "--ram", "16GiB")
    assert "RTX 3090" not in mixcli(*ask, **{**path, "CUDA_VISIBLE_DEVICES": ""}).stderr, (
        "all cards are hidden"
    )
    assert "RTX 3090" not in mixcli(*ask, "--profile", "cpu", **path).stderr, "another machine"
    first, second = mixcli(*ask, **path), mixcli(*ask, **path)
    assert "NVIDIA GeForce RTX 3090 (24 GiB)" in first.stderr
    assert "pip install --force-reinstall" in first.stderr
    assert (first.returncode, second.returncode, second.stderr) == (0, 0, "")
    json_cache.update("notices", lambda found: found.update(unused_cards="2020-01-01"))
    assert "RTX 3090" in mixcli(*ask, **path).stderr


# clocks, lines, lanes and cores as NVML counts them: highest clock of the memory, bits, PCIe, CUDA cores, highest clock of those
@pytest.mark.parametrize(
    ("name", "memory", "bits", "cores", "clock", "capability"),
    [
        ("RTX 3090", 9751, 384, 10496, 2100, 86),
        ("RTX 4090", 10501, 384, 16384, 3105, 89),
        ("RTX 5090", 14001, 512, 21760, 3090, 120),
    ],
)
def test_what_a_driver_says_of_a_card_gives_the_rates_that_a_profile_has(
    name: str, memory: int, bits: int, cores: int, clock: int, capability: int
) -> None:
    known = card(f"NVIDIA GeForce {name}")
    assert known is not None
    assert nvidia.bandwidth(memory, bits) == pytest.approx(known.bandwidth_gbs, rel=0.01)
    assert nvidia.link(5 if capability == 120 else 4, 16) == pytest.approx(known.link_gbs, rel=0.01)
    assert nvidia.tflops(cores, clock, capability) == pytest.approx(known.tflops, rel=0.04)


def test_an_h200_told_what_it_does() -> None:
    """As NVML told it there; NVIDIA says 4.8 TB/s and 989 TFLOP/s."""
    assert nvidia.bandwidth(3201, 6016) == pytest.approx(4800, rel=0.01)
    assert nvidia.link(5, 16) == pytest.approx(47.9, rel=0.01)
    assert nvidia.tflops(16896, 1980, 90) == pytest.approx(856, rel=0.01)


def test_the_driver_knows_better_than_the_profile_what_a_card_does(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pynvml", NVML)
    description = "NVIDIA GeForce RTX 4090"
    device = hardware.DeviceFacts("CUDA0", description, "gpu", 24 << 30, 24 << 30, "CUDA0")
    gpu = hardware._gpu(device)
    assert (gpu.kind, gpu.bytes_free) == ("cuda", (24 << 30) - hardware.RESERVE_GPU)
    assert gpu.bandwidth == pytest.approx(1008, rel=0.01)
    assert gpu.link == pytest.approx(12, rel=0.01), "half of the lanes"
    monkeypatch.setitem(
        sys.modules, "pynvml", SimpleNamespace(**{**vars(NVML), "nvmlDeviceGetNumGpuCores": None})
    )
    assert hardware._gpu(device).link == 24, "a driver that does not say all is not believed in parts"
    unknown = hardware._gpu(replace(device, description="NVIDIA RTX Something"))
    assert unknown.bandwidth == hardware.Gpu("", 0).bandwidth


def test_a_build_with_cuda_has_nothing_to_say(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hardware, "gpu_backends", lambda: ["cuda"])
    assert hardware.unused_cards() is None


@pytest.fixture
def processors(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str, str], None]:
    """Put a file of a recorded /sys/devices in place."""
    monkeypatch.setattr(hardware, "DEVICES", tmp_path)

    def put(name: str, text: str) -> None:
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)

    return put


def test_slow_cores_of_an_intel_hybrid_do_not_count(processors: Callable[[str, str], None]) -> None:
    processors("cpu_core/cpus", "0-15\n")  # an i9-13900K: 8 fast cores with two threads each, 16 slow ones
    processors("cpu_atom/cpus", "16-31\n")
    assert hardware.fast_cores(set(range(32))) == set(range(16))
    assert hardware.fast_cores({16, 17}) == {16, 17}  # better slow ones than none


def test_small_cores_of_an_arm_do_not_count(processors: Callable[[str, str], None]) -> None:
    for cpu, capacity in enumerate((414, 414, 870, 870, 1024)):
        processors(f"system/cpu/cpu{cpu}/cpu_capacity", f"{capacity}\n")
    assert hardware.fast_cores(set(range(5))) == {2, 3, 4}


def test_all_cores_count_where_nothing_is_said(processors: Callable[[str, str], None]) -> None:
    assert hardware.fast_cores({0, 1, 2}) == {0, 1, 2}
    assert hardware.physical_cores() >= 1
