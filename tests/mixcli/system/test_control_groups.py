"""The limits of control groups, recorded as Linux shows them: containers, systemd services, and version 1."""

from pathlib import Path

import pytest

from mixcli.system import hardware

GIB = 1 << 30
V2 = "30 25 0:26 / {root} rw,nosuid - cgroup2 cgroup2 rw,nsdelegate"
V1 = "35 31 0:32 {group} {root}/{name} rw - cgroup cgroup rw,{options}"
UNLIMITED = str((1 << 63) - 4096)


@pytest.fixture(autouse=True)
def large_machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A machine with 64 GiB, all free, and 16 cores of one thread."""
    proc = tmp_path / "proc"
    put(proc, {"meminfo": f"MemTotal: {64 << 20} kB\nMemAvailable: {64 << 20} kB\n"})
    monkeypatch.setattr(hardware, "PROC", proc)
    monkeypatch.setattr(hardware, "DEVICES", tmp_path / "no-devices")
    monkeypatch.setattr(hardware.os, "sched_getaffinity", lambda _: set(range(16)), raising=False)


def put(folder: Path, files: dict[str, str]) -> None:
    for name, text in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)


def group(tmp_path: Path, lines: str, mounts: str, files: dict[str, str]) -> None:
    """Write what a process sees: its groups, where they are mounted, and their files."""
    put(tmp_path / "proc/self", {"cgroup": lines, "mountinfo": f"{mounts}\na line of another form\n"})
    put(tmp_path / "cgroup", files)


def seen() -> tuple[float, float, int]:
    """Return the free and the whole memory in GiB, and the cores."""
    return hardware.memory_free() / GIB, hardware.memory_total() / GIB, hardware.physical_cores()


def test_a_machine_without_limits_is_whole(tmp_path: Path) -> None:
    assert seen() == (64, 64, 16)
    group(tmp_path, "0::/\n", V2.format(root=tmp_path / "cgroup"), {"cgroup.procs": "1"})
    assert seen() == (64, 64, 16)


def test_a_container_has_its_own_group_as_the_root(tmp_path: Path) -> None:
    stat = f"anon {GIB}\ninactive_file {GIB // 2}\nactive_file {GIB // 2}\nodd\n"
    files = {"memory.max": str(8 * GIB), "memory.current": str(3 * GIB), "memory.stat": stat, "cpu.max": "250000 100000"}  # fmt: skip
    group(tmp_path, "0::/\n", V2.format(root=tmp_path / "cgroup"), files)
    assert seen() == (6, 8, 2)


def test_a_service_is_limited_by_its_group_and_those_around_it(tmp_path: Path) -> None:
    """MemoryMax of a unit, CPUQuota of its slice: neither is a file of the root."""
    unit, slice_ = "system.slice/mixcli.service", "system.slice"
    files = {
        f"{unit}/memory.max": str(16 * GIB), f"{unit}/memory.current": str(GIB), f"{unit}/cpu.max": "max 100000",
        f"{slice_}/memory.max": str(32 * GIB), f"{slice_}/memory.current": str(30 * GIB), f"{slice_}/cpu.max": "400000 100000",
    }  # fmt: skip
    group(tmp_path, f"0::/{unit}\n", V2.format(root=tmp_path / "cgroup"), files)
    assert seen() == (2, 16, 4)


def test_a_group_is_slowed_down_from_a_limit_on(tmp_path: Path) -> None:
    """MemoryHigh of a unit: reclaiming makes every access wait beyond it, long before its MemoryMax."""
    files = {"memory.max": str(16 * GIB), "memory.high": str(12 * GIB), "memory.current": str(2 * GIB)}
    group(tmp_path, "0::/\n", V2.format(root=tmp_path / "cgroup"), files)
    assert seen() == (10, 12, 16)
    put(tmp_path / "cgroup", {"memory.max": "max"})
    assert seen() == (10, 12, 16)
    put(tmp_path / "cgroup", {"memory.high": "max"})
    assert seen() == (64, 64, 16)


def test_version_1_has_a_tree_for_each_controller(tmp_path: Path) -> None:
    """As Docker has it on an older system: the container's group is mounted, and the others are beside it."""
    root, of = tmp_path / "cgroup", "/docker/0123"
    mounts = "\n".join(
        V1.format(group=of, root=root, name=name, options=name) for name in ("memory", "cpu,cpuacct", "pids")
    )
    lines = f"9:pids:{of}\n4:memory:{of}\n1:cpu,cpuacct:{of}\n0::/system.slice\n"
    files = {
        "memory/memory.limit_in_bytes": str(8 * GIB), "memory/memory.usage_in_bytes": str(4 * GIB),
        "memory/memory.stat": f"inactive_file 1\ntotal_inactive_file {GIB}\ntotal_active_file 0\n",
        "cpu,cpuacct/cpu.cfs_quota_us": "50000", "cpu,cpuacct/cpu.cfs_period_us": "100000",
    }  # fmt: skip
    group(tmp_path, lines, mounts, files)
    assert seen() == (5, 8, 1)
    put(root, {"memory/memory.limit_in_bytes": UNLIMITED, "cpu,cpuacct/cpu.cfs_quota_us": "-1"})
    assert seen() == (64, 64, 16)
