"""End a forked command line with SIGKILL at a moment of its work, which is the same on every machine.

A moment is "STAGE:N": the Nth step after the progress whose title begins with STAGE was begun. A step is a report of progress, or a change of
a file: one that is opened for writing, renamed or removed.
"""

import os
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from mixcli.system.console import Bar, Console

VARIABLE = "TESTS_KILL_AT"
_CHANGES = frozenset(("os.rename", "os.remove", "os.truncate", "os.link"))
_WRITING = os.O_WRONLY | os.O_RDWR


class _Steps:
    """Counts the steps of a stage, and is the bar that reports them."""

    def __init__(self, stage: str, n: int) -> None:
        self._stage, self._left = stage, n
        self._is_in_stage = False
        self._bar: Bar | None = None

    def begin(self, title: str, bar: Bar) -> Bar:
        self._is_in_stage, self._bar = title.startswith(self._stage), bar
        return self

    def update(self, done: float, total: float, stage: str = "") -> None:
        assert self._bar
        self._bar.update(done, total, stage)
        self._step()

    def hear(self, event: str, arguments: tuple[Any, ...]) -> None:
        if event in _CHANGES or (event == "open" and arguments[2] & _WRITING):
            self._step()

    def _step(self) -> None:
        self._left -= self._is_in_stage
        if not self._left:
            os.kill(os.getpid(), signal.SIGKILL)


def kill_at(moment: str) -> None:
    """End this process with SIGKILL at a moment, if that comes."""
    stage, _, number = moment.rpartition(":")
    steps = _Steps(stage, int(number))
    progress = Console.progress

    @contextmanager
    def counted(self: Console, title: str, unit: Any = None) -> Iterator[Bar]:
        with progress(self, title, unit) as bar:
            yield steps.begin(title, bar)

    Console.progress = counted  # type: ignore[method-assign]
    sys.addaudithook(steps.hear)


__all__ = ["VARIABLE", "kill_at"]
