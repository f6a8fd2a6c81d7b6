"""Compare what a load took of the workers' memory with the plan: their free memory before and after, beside the buffers in llama.cpp's log."""

from collections.abc import Mapping, Sequence

from mixcli.llama import ggml, rpc
from mixcli.system.device_facts import worker_of
from mixcli.system.formatting import format_bytes
from mixcli.system.measurements import Expected
from mixcli.system.worker_address import worker_address

# of what was planned, and bytes: what other programs there may take or give back meanwhile
SHARE, LEAST = 0.25, 512 << 20


def free_memory(workers: Sequence[str]) -> dict[str, int]:
    """Ask workers for the bytes that are free on each of their devices; nothing of those on this machine, whose memory is the host's.

    They are connected in their order, which llama.cpp's devices have then. Raises what `rpc.connect` raises.
    """
    if all(map(_is_here, workers)):
        return {}
    for worker in workers:
        rpc.connect(worker)
    elsewhere = {worker_address(worker) for worker in workers if not _is_here(worker)}
    found = ggml.devices(lambda buffer_type: worker_of(buffer_type) in elsewhere)
    return {one.buffer_type: one.bytes_free for one in found}


def differences(expected: Expected, before: Mapping[str, int], after: Mapping[str, int]) -> list[str]:
    """Return a sentence for each worker's device whose free memory changed by clearly more or less than was planned."""
    found = []
    for name, parts in expected.items():
        if name not in before or name not in after:
            continue
        planned, taken = sum(parts.values()), before[name] - after[name]
        if abs(taken - planned) > max(LEAST, SHARE * planned):
            was = f"fell by {format_bytes(taken)}" if taken >= 0 else f"grew by {format_bytes(-taken)}"
            found.append(
                f"the free memory of {name} {was} during the load where {format_bytes(planned)} were planned; {format_bytes(after[name])} "
                "are left: look for other programs on that machine"
            )
    return found


def _is_here(worker: str) -> bool:
    return worker.startswith(("127.", "localhost:"))


__all__ = ["differences", "free_memory"]
