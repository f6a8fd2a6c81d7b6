"""What llama.cpp reports of a device: found in a child process, read by the parent."""

from dataclasses import dataclass


@dataclass(frozen=True)
class NetworkPath:
    """The network path to a worker: seconds of a round trip, and GB/s to and from its memory, 0 where that was not measured."""

    round_trip: float = 0.0
    gbs: float = 0.0


@dataclass(frozen=True)
class DeviceFacts:
    """One device that llama.cpp can compute on; memory in bytes, of the whole machine for the CPU.

    `buffer_type` is the name that its memory has in llama.cpp's log and in tensor overrides; that of a worker's ends with its address in
    brackets. The path to a worker is a NetworkPath: `round_trip` in seconds, `network_gbs` in GB/s.
    """

    name: str
    description: str
    kind: str
    bytes_free: int
    bytes_total: int
    buffer_type: str
    round_trip: float = 0.0
    network_gbs: float = 0.0

    @property
    def worker(self) -> str:
        """Return HOST:PORT of the worker that has it; empty for a device of this machine."""
        return worker_of(self.buffer_type)


def worker_of(buffer_type: str) -> str:
    """Return HOST:PORT in the name of a worker's memory, such as RPC0[192.168.1.20:50052]; empty for other devices."""
    name, _, address = buffer_type.partition("[")
    return address.removesuffix("]") if name.startswith("RPC") else ""
