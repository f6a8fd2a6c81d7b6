"""What a person asks of a plan."""

from dataclasses import dataclass
from typing import Literal

from profiles.placement import SEQUENCES

Purpose = Literal["chat", "batch"]

# tokens read and written that a purpose stands for
WORK: dict[Purpose, tuple[int, int]] = {"chat": (512, 256), "batch": (2048, 96)}


@dataclass(frozen=True)
class Request:
    """What a person asks for; None leaves it to the planner.

    `kv` is a cache type, "auto" allows q8_0 where f16 does not fit. `purpose` weighs reading against writing. With `from_disk`
    experts that do not fit into main memory may stay on disk.
    """

    n_ctx: int | None = None
    kv: str | None = None
    n_ubatch: int | None = None
    purpose: Purpose = "chat"
    n_seq_max: int = SEQUENCES
    from_disk: bool = False


def work_seconds(purpose: Purpose, prefill: float, decode: float) -> float:
    """Return the seconds for one piece of work of that purpose; rates are tokens a second."""
    read, write = WORK[purpose]
    return read / prefill + write / decode
