"""Hosts in little time: a process that has imported what a host does forks for each of them.

How a host is really started, as a program of its own, is for the tests of `mixcli serve` and for those that call `process.start`.
"""

import gc
import importlib
import os
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NoReturn

from mixcli.client.spawn import Child
from mixcli.host import __main__ as host
from mixcli.system import python_child
from tests.support import forked, verdicts

PRELOADED = ("uvicorn", "mixcli.host.api.app", "mixcli.host.state", "mixcli.system.connection")
WRITE = os.O_WRONLY | os.O_CREAT | os.O_TRUNC


def install() -> None:
    """Import what a host imports, and let a command line that starts one fork; for the process that forks command lines."""
    for name in PRELOADED:
        importlib.import_module(name)
    Child.start = classmethod(_fork)  # type: ignore[method-assign,assignment]


@contextmanager
def starting() -> Iterator[None]:
    """Let hosts that this process starts meanwhile be forked; each ends with it at the latest."""
    verdicts.lend(Path(os.environ["MIXCLI_HOME"]))
    usual = Child.__dict__["start"]
    Child.start = classmethod(_begin)  # type: ignore[method-assign,assignment]
    try:
        yield
    finally:
        Child.start = usual  # type: ignore[method-assign]


def serve(argument: str) -> NoReturn:
    """Be a host, with the signals of a new process and no files but the standard streams."""
    try:
        gc.freeze()  # what was inherited is never closed: its descriptors' numbers will be others'
        os.closerange(3, 1024)
        os.setsid()
        for number in (signal.SIGTERM, signal.SIGHUP, signal.SIGCHLD, signal.SIGWINCH):
            signal.signal(number, signal.SIG_DFL)
        signal.signal(signal.SIGINT, signal.default_int_handler)
        signal.set_wakeup_fd(-1)
        signal.pthread_sigmask(signal.SIG_SETMASK, ())
        sys.argv = ["mixcli.host", argument]
    except BaseException:
        os._exit(1)
    host.main()


def _fork(cls: type[Child], module: str, argument: str, log: Path) -> Child:
    assert module == "mixcli.host"
    kept = python_child.environment()
    pid = os.fork()
    if pid:
        return cls(pid)
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
    os.dup2(os.open(log, WRITE, 0o600), 1)
    os.dup2(1, 2)
    os.environ.clear()
    os.environ.update(kept)
    serve(argument)


def _begin(cls: type[Child], module: str, argument: str, log: Path) -> Child:
    assert module == "mixcli.host"
    written = os.open(log, WRITE, 0o600)
    streams = [os.open(os.devnull, os.O_RDONLY), written, os.dup(written)]
    return _Begun(forked.begin([forked.HOST, argument], python_child.environment(), Path.cwd(), streams))


class _Begun(Child):
    """A host that another process forked and waits for."""

    def __init__(self, started: forked.Started) -> None:
        self._started = started
        super().__init__(started.pid)

    def _reap(self) -> None:
        with self._started:
            self._code = self._started.wait(None)
        self._ended.set()
