"""The options of a load, as the command line gives them; small, because every loading command imports it."""

from dataclasses import dataclass

from profiles.request import Request


@dataclass(frozen=True)
class Wish:
    """The options of a load: what the plan must meet, and the machine that it is made for (see insight.machines.machine_of)."""

    request: Request
    profile: str | None = None
    vram: int | None = None
    ram: int | None = None
    workers: tuple[str, ...] = ()
