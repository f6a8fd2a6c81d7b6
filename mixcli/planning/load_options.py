"""The options of a load, as the command line gives them; small, because every loading command imports it."""

import shlex
from dataclasses import dataclass, replace
from typing import Self

from profiles.request import PlanRequest

GIB = 1 << 30


@dataclass(frozen=True)
class LoadOptions:
    """The options of a load: what the plan must meet, and the machine that it is made for (see planning.machines.machine_of).

    `draft` is the GGUF of a small model that guesses tokens for the one that is loaded.
    """

    request: PlanRequest
    profile: str | None = None
    vram: int | None = None
    ram: int | None = None
    workers: tuple[str, ...] = ()
    draft: str | None = None

    @property
    def of_any_context(self) -> Self:
        """Return the same options without a context length: to name models where that of a load is one chunk of a text."""
        return replace(self, request=replace(self.request, n_ctx=None))

    @property
    def where(self) -> str:
        """Return which machine it is for, as a sentence has it: "here", "on rtx-4090"."""
        return "here" if self.profile in (None, "auto") else f"on {self.profile}"

    @property
    def options(self) -> str:
        """Return the options that make it, quoted for a shell; empty where nothing was asked."""
        request = self.request
        said = [
            ("--ctx", request.n_ctx),
            ("--profile", None if self.profile == "auto" else self.profile),
            ("--vram", None if self.vram is None else _size(self.vram)),
            ("--ram", None if self.ram is None else _size(self.ram)),
            ("--kv", request.kv),
            *(("--worker", worker) for worker in self.workers),
        ]
        words = [str(word) for name, value in said if value is not None for word in (name, value)]
        return shlex.join([*words, *(["--from-disk"] if request.from_disk else [])])


def _size(n_bytes: int) -> str:
    return f"{n_bytes // GIB}GiB" if n_bytes % GIB == 0 and n_bytes else str(n_bytes)
