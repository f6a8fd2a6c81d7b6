"""What is read of a machine, by the code that reads it, from facts that were recorded on machines that are not here."""

import sys
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import pytest

from mixcli import hardware

# what nvidia-ml-py answers on a machine with one RTX 4090 and a driver for CUDA 12.4
NVML = SimpleNamespace(
    nvmlInit=lambda: None,
    nvmlDeviceGetCount=lambda: 1,
    nvmlDeviceGetHandleByIndex=lambda index: index,
    nvmlDeviceGetName=lambda _handle: "NVIDIA GeForce RTX 4090",
    nvmlDeviceGetMemoryInfo=lambda _handle: SimpleNamespace(total=25757220864),
    nvmlSystemGetCudaDriverVersion=lambda: 12040,
)
SMI = "#!/bin/sh\necho 'NVIDIA GeForce RTX 3090, 24576'\n"


@pytest.fixture
def without_cuda(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hardware, "gpu_backends", lambda: ["rpc"])


@pytest.mark.usefixtures("without_cuda")
def test_a_4090_that_this_build_cannot_use_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pynvml", NVML)
    note = hardware.unused_cards()
    assert note is not None
    assert "NVIDIA GeForce RTX 4090 (24 GiB) is here" in note
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
    assert hardware.driver_cards() == [hardware.Card("NVIDIA GeForce RTX 3090", 24576 << 20)]
    note = hardware.unused_cards()
    assert note is not None
    assert note.endswith("/whl/cu125")


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
