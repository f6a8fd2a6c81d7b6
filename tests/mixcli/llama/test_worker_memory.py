"""The memory of workers before and after a load, against the plan."""

import pytest

from mixcli.llama import ggml, rpc
from mixcli.llama.worker_memory import differences, free_memory

GIB = 1 << 30
THERE = "RPC0[192.0.2.1:50052]"
EXPECTED = {"host": {"weights": GIB}, THERE: {"weights": 3 * GIB, "kv": GIB, "compute": 0}}


def test_a_change_as_planned_is_not_told() -> None:
    for taken in (4 * GIB, 3.2 * GIB, 4.8 * GIB):
        assert differences(EXPECTED, {THERE: 20 * GIB}, {THERE: int(20 * GIB - taken)}) == []
    assert differences(EXPECTED, {}, {}) == []


def test_more_or_less_is_told_with_both_numbers_and_what_is_left() -> None:
    (more,) = differences(EXPECTED, {THERE: 20 * GIB}, {THERE: 10 * GIB})
    assert (
        f"the free memory of {THERE} fell by 10.7 GB during the load where 4.3 GB were planned; 10.7 GB are"
        in more
    )
    (less,) = differences(EXPECTED, {THERE: 20 * GIB}, {THERE: 21 * GIB})
    assert "grew by 1.1 GB" in less


def test_workers_of_this_machine_are_not_asked() -> None:
    """Their memory is the host's, which takes its own part meanwhile."""
    assert free_memory(["127.0.0.1:1", "localhost:2"]) == {}
    assert free_memory([]) == {}


def test_the_devices_of_this_machine_are_not_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    """A CUDA device that is asked takes some of its memory."""
    monkeypatch.setattr(rpc, "connect", lambda _: [])  # there is no other machine
    asked: list[str] = []
    (pointer, *_) = ggml.device_pointers("cpu")
    head = ggml._DeviceHead.from_address(pointer)
    own = head.get_memory

    def memory() -> tuple[int, int]:
        asked.append("cpu")
        return GIB, GIB

    ggml.report_memory(pointer, memory)
    try:
        assert free_memory(["192.0.2.1:50052"]) == {}
        assert asked == []
        assert ggml.devices()
        assert asked == ["cpu"]
    finally:
        head.get_memory = own
