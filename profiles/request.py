"""The options of a plan."""

import re
from dataclasses import dataclass, replace
from typing import Literal, NamedTuple, Self, get_args

from profiles.errors import BadRequest

Purpose = str  # a name in WORK, or prompt and answer tokens as "3000+100"
MAX_TOKENS = 1 << 24
SEQUENCES = 64  # ids in the unified KV cache, for running and parked texts together; each costs a row of logits on the host


class Work(NamedTuple):
    """A piece of work: tokens that are read and written, and how many texts are written at the same time."""

    read: int
    write: int
    at_once: int = 1


TOGETHER = 16  # texts of a batch that are written at once; more wait for a prompt or for their turn
# a turn of a chat as usual, its history cached; records of a batch with their common instruction computed once
WORK = {"chat": Work(400, 150), "batch": Work(2048, 96, TOGETHER)}


def work_of(purpose: Purpose) -> Work:
    """Return the work that a purpose stands for; BadRequest for one that is not a name of WORK and not READ+WRITTEN."""
    if purpose in WORK:
        return WORK[purpose]
    match = re.fullmatch(r"(\d{1,8})\+(\d{1,8})", purpose)
    read, write = (int(number) for number in match.groups()) if match else (0, 0)
    if not 0 < read <= MAX_TOKENS or not 0 < write <= MAX_TOKENS:
        raise BadRequest(
            f"invalid purpose {purpose!r:.40}; use {', '.join(WORK)}, or prompt and answer tokens, 1 to {MAX_TOKENS:,} each, such as 3000+100"
        )
    return Work(read, write)


Preference = Literal["balanced", "quality", "speed"]
PREFERENCES: tuple[Preference, ...] = get_args(Preference)


class Rule(NamedTuple):
    """How a file is chosen: the preference, and the least decode speed in tok/s; None for no limit."""

    prefer: Preference = "balanced"
    min_tps: float | None = None


@dataclass(frozen=True)
class PlanRequest:
    """What a person asks for; None leaves it to the planner.

    `kv` is a cache type, "auto" allows q8_0 where f16 does not fit. `purpose` weighs reading against writing. With `from_disk`
    experts that do not fit into host memory may stay on disk. With `on_gpus` no layer may stay in host memory: whether there is such a plan is
    known much sooner than which other one is the fastest. `least_ctx` are the tokens of work that a person has counted: no plan has a
    smaller context.
    """

    n_ctx: int | None = None
    kv: str | None = None
    n_ubatch: int | None = None
    purpose: Purpose = "chat"
    n_seq_max: int = SEQUENCES
    from_disk: bool = False
    on_gpus: bool = False
    least_ctx: int = 0

    def for_work(self, purpose: Purpose) -> Self:
        """Return the request for a purpose that a person named; work in numbers must also fit in the context."""
        work = work_of(purpose)
        return replace(
            self, purpose=purpose, least_ctx=0 if purpose in WORK else work.at_once * (work.read + work.write)
        )


def work_seconds(purpose: Purpose, prefill: float, decode: float) -> float:
    """Return the seconds for one piece of work of that purpose; rates are tokens per second, of all texts at once where there are several."""
    work = work_of(purpose)
    return work.read / prefill + work.write / decode
