"""Run a command line of mixcli and tell what each of its stages takes: `python -m bench.tailor.stages RESULT.json ARGUMENT...`.

A stage begins with the progress of its title and is named by the first word of that; what comes before the first is "starting". The processor
time of the processes that a stage starts counts, once they have ended.
"""

import json
import os
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NoReturn

from mixcli.__main__ import main as run
from mixcli.system.console import Bar, Console

STARTING = "starting"


class Stages:
    """What each stage has taken so far: [seconds on the wall, processor seconds]."""

    def __init__(self) -> None:
        self.taken: dict[str, list[float]] = {}
        self._name, self._since = STARTING, (_process_started(), 0.0)

    def begin(self, name: str) -> None:
        """Let a stage begin, with which the one before it ends."""
        now = _now()
        mine = self.taken.setdefault(self._name, [0.0, 0.0])
        for i in range(2):
            mine[i] += now[i] - self._since[i]
        self._name, self._since = name, now


def _now() -> tuple[float, float]:
    return time.monotonic(), sum(os.times()[:4])


def _process_started() -> float:
    """Return when this process was started, by the clock that `_now` reads."""
    fields = Path("/proc/self/stat").read_text("ascii").rpartition(")")[2].split()
    return int(fields[19]) / os.sysconf("SC_CLK_TCK")


def main() -> NoReturn:
    stages, result = Stages(), Path(sys.argv.pop(1))
    progress = Console.progress

    @contextmanager
    def staged(self: Console, title: str, unit: Any = None, **others: Any) -> Iterator[Bar]:
        stages.begin(title.split(maxsplit=1)[0])
        with progress(self, title, unit, **others) as bar:
            yield bar

    Console.progress = staged  # type: ignore[method-assign]
    try:
        run()
    finally:
        stages.begin("ended")
        result.write_text(json.dumps(stages.taken), "utf-8")


if __name__ == "__main__":
    main()
