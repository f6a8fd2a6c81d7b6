"""What llama.cpp tells of a device: found in a child process, read by the parent."""

from dataclasses import dataclass


@dataclass(frozen=True)
class DeviceFacts:
    """One device that llama.cpp can compute on; memory in bytes, of the whole machine for the CPU.

    `buffer_type` is the name that its memory has in llama.cpp's log and in tensor overrides.
    """

    name: str
    description: str
    kind: str
    bytes_free: int
    bytes_total: int
    buffer_type: str
