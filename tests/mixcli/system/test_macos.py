"""macOS, as its programs answer: recorded answers of a MacBook with an M2 Max and 64 GB, and of one with an Intel processor."""

import errno
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from mixcli.llama.buffers import HOST, buffers_in
from mixcli.system import hardware, locks, macos
from mixcli.system.device_facts import DeviceFacts
from profiles.machine import Machine
from profiles.planner import PlanRequest, plan
from tests.profiles.test_planner import MIXTRAL

GIB = 1 << 30
VM_STAT = """Mach Virtual Memory Statistics: (page size of 16384 bytes)
Pages free:                             1310720.
Pages active:                            900000.
Pages inactive:                          800000.
Pages speculative:                       100000.
Pages throttled:                              0.
Pages wired down:                        250000.
Pages purgeable:                          50000.
"Translation faults":                 993217342.
"""
APPLE = {"hw.perflevel0.physicalcpu": 8, "hw.perflevel1.physicalcpu": 4, "hw.physicalcpu": 12}
INTEL = {"hw.physicalcpu": 6}
Mac = Callable[..., None]


@pytest.fixture
def mac(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Mac]:
    """Put vm_stat and sysctl into PATH that answer as on a Mac, which has no /proc and no /sys."""
    monkeypatch.setattr(macos, "SYSTEM", "darwin")
    for name in ("PROC", "DEVICES"):
        monkeypatch.setattr(hardware, name, tmp_path / "nothing")

    def put(cores: dict[str, int], vm_stat: str = VM_STAT) -> None:
        known = "".join(f"{name}) echo {n};;\n" for name, n in cores.items())
        unknown = "*) echo \"sysctl: unknown oid '$2'\" >&2; exit 1;;\n"
        scripts = {
            "sysctl": f'case "$2" in\n{known}{unknown}esac\n',
            "vm_stat": f"cat <<'END'\n{vm_stat}END\n",
        }
        for name, text in scripts.items():
            (tmp_path / name).write_text(f"#!/bin/sh\n{text}")
            (tmp_path / name).chmod(0o755)
        monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
        macos._number.cache_clear()

    yield put
    macos._number.cache_clear()


def test_memory_is_what_programs_can_have(mac: Mac) -> None:
    mac(APPLE)
    assert hardware.memory_free() == 16384 * (1310720 + 800000 + 100000 + 50000)


def test_only_fast_cores_count(mac: Mac) -> None:
    mac(APPLE)
    assert hardware.physical_cores() == 8
    mac(INTEL)
    assert hardware.physical_cores() == 6


def test_what_is_not_understood_gives_way(mac: Mac) -> None:
    mac({}, vm_stat="vm_stat: failed\n")
    assert hardware.physical_cores() >= 1
    assert hardware.memory_free() == hardware.memory_total()


def test_other_systems_do_not_ask(mac: Mac, monkeypatch: pytest.MonkeyPatch) -> None:
    mac(APPLE)
    monkeypatch.setattr(macos, "SYSTEM", "linux")
    assert (macos.memory_free(), macos.fast_cores()) == (None, None)


@pytest.mark.parametrize("name", ["MTL0", "Metal"])  # of llama.cpp's releases
def test_a_gpu_of_apple_shares_the_memory(mac: Mac, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    """Metal's budget is recommendedMaxWorkingSetSize, three quarters of 64 GiB; what GPU and host take together is in one memory."""
    mac(APPLE)
    device = DeviceFacts(name, "Apple M2 Max", "gpu", 48 * GIB, 48 * GIB, name)
    cpu = DeviceFacts("CPU", "Apple M2 Max", "cpu", 64 * GIB, 64 * GIB, "CPU")
    monkeypatch.setattr(hardware, "devices", lambda _workers: [device, cpu])
    machine = hardware.this_machine()
    (gpu,) = machine.gpus
    assert (gpu.kind, gpu.bytes_free, machine.unified) == ("metal", 48 * GIB - hardware.RESERVE_GPU, True)
    assert gpu.bandwidth == gpu.link == 300, "of the profile of such computers"
    assert not gpu.computes_host_weights
    found = plan(MIXTRAL, machine, PlanRequest(n_ctx=4096))
    on_gpu, on_host = found.ledger
    assert on_gpu.experts == MIXTRAL.bytes_experts
    assert on_gpu.need + on_host.need <= machine.bytes_free < gpu.bytes_free


def test_buffers_of_metal_are_found_in_the_log() -> None:
    log = """
load_tensors:   CPU_Mapped model buffer size =    70.31 MiB
load_tensors:  MTL0_Mapped model buffer size = 25145.55 MiB
llama_kv_cache:       MTL0 KV buffer size =   512.00 MiB
sched_reserve:       MTL0 compute buffer size =   204.00 MiB
sched_reserve:        CPU compute buffer size =    16.01 MiB
""".splitlines()
    found = buffers_in(log, ["MTL0"])
    assert (found["MTL0"].weights, found["MTL0"].kv, found["MTL0"].compute) == (None, 512 << 20, 204 << 20)
    assert found[HOST].weights is None


def test_a_file_system_without_locks_says_so_in_two_ways() -> None:
    """EOPNOTSUPP and ENOTSUP are one number on Linux and two on macOS, where flock returns the second."""
    assert {errno.ENOTSUP, errno.EOPNOTSUPP} <= locks.NO_LOCKS


def test_a_machine_without_a_setting_has_no_way_to_more_memory() -> None:
    assert Machine(8 * GIB, 8).more_memory(GIB) == ""
