"""What is asked of a load, before anybody knows whether it fits; small, because every command that loads reads it first."""

from dataclasses import dataclass

from profiles.request import Request


@dataclass(frozen=True)
class Wish:
    """How a model shall be loaded: what is asked of the plan, and which machine it is made for (see insight.machines.machine_of)."""

    request: Request
    profile: str | None = None
    vram: int | None = None
    ram: int | None = None
    workers: tuple[str, ...] = ()
