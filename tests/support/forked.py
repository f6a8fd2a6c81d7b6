"""Many command lines in little time: a process that has imported mixcli already forks for each of them.

Every run is a process of its own with its own streams, environment and folder, as `python -m mixcli` starts one, only without the time of
the imports. What the program imports first, and how it starts, is for the tests that start a real one.
"""

import array
import atexit
import contextlib
import fcntl
import gc
import importlib
import json
import os
import select
import selectors
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import termios
import threading
import time
import traceback
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, Self

import click

from tests.support import moments

LIMIT = 60.0  # seconds for one command line
END = 300.0  # seconds for a process that has closed its streams, or its terminal
PRELOADED = (
    "mixcli.batch.batch",
    "mixcli.chat.loop",
    "mixcli.chat.sessions",
    "mixcli.client.openai",
    "mixcli.planning.launch",
    "mixcli.planning.machines",
    "mixcli.planning.report",
    "mixcli.request.output_format",
    "mixcli.run.modes",
    "mixcli.store.import_",
    "mixcli.store.removal",
    "mixcli.store.store",
    "quantize",
    "quantize.recipe",
)
CONVERSION = ("quantize.conversion", "quantize.sources.model_source")
HOST = "--host"  # instead of a command: a host
HOSTS = "tests.support.forked_hosts"
ASKING = ("mixcli.chat.input", "mixcli.chat.view.markdown", "mixcli.client.process", HOSTS)
MORE = {  # what some commands import besides; it would make every other fork slower
    "convert": CONVERSION,
    "tailor": CONVERSION,
    "quantize": CONVERSION,
    **dict.fromkeys((HOST, "batch", "chat", "run"), ASKING),
    "pull": ("huggingface_hub.hf_api",),  # for what it imports; itself it is imported again, see _serve
}
ROOT = Path(__file__).resolve().parents[2]


@dataclass(frozen=True)
class Done:
    """How a command line ended."""

    code: int
    out: bytes
    err: bytes

    @property
    def sentence(self) -> str:
        return self.err.decode("utf-8", "replace")


KILLED = Done(-1, b"", b"")  # it took longer than its limit


def can_fork(env: Mapping[str, str]) -> bool:
    """Return whether a command line can be forked: nothing in its environment is for Python itself, and the system lets us wait for it."""
    return hasattr(os, "pidfd_open") and not any(name.startswith("PYTHON") for name in env)


def run(
    args: Sequence[str | bytes],
    env: Mapping[str, str],
    stdin: bytes = b"",
    limit: float = LIMIT,
    folder: Path | None = None,
) -> Done:
    """Run a command line with exactly this environment; stdin is a pipe."""
    pipes = [os.pipe() for _ in range(3)]
    theirs, ours = [pipes[0][0], pipes[1][1], pipes[2][1]], [pipes[0][1], pipes[1][0], pipes[2][0]]
    with begin(args, env, folder or Path.cwd(), theirs) as started:
        ended = _talked(ours, stdin, time.monotonic() + limit)
        return KILLED if ended is None else Done(started.wait(), *ended)


class Started:
    """A command line that runs; it is killed when this is closed."""

    def __init__(self, connection: socket.socket) -> None:
        self._connection = connection
        connection.settimeout(END)
        self._lines = connection.makefile("r", encoding="ascii")
        self.pid = int(self._lines.readline())

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._lines.close()
        self._connection.close()

    def wait(self, seconds: float | None = END) -> int:
        """Wait until it has ended and return its exit code; a negative one is a signal."""
        self._connection.settimeout(seconds)
        return int(self._lines.readline())


def begin(
    args: Sequence[str | bytes], env: Mapping[str, str], folder: Path, streams: Sequence[int]
) -> Started:
    """Start a command line with three streams, or with one that is its terminal; they are closed here."""
    asked = json.dumps(
        {
            "args": [os.fsencode(arg).hex() for arg in args],
            "env": {name: os.fsencode(value).hex() for name, value in env.items()},
            "folder": os.fspath(folder),
        }
    ).encode()
    connection = socket.socket(socket.AF_UNIX)
    connection.connect(_place(MORE.get(os.fsdecode(args[0]), ()) if args else ()))
    socket.send_fds(connection, [len(asked).to_bytes(8, "big")], streams)
    connection.sendall(asked)
    for number in streams:
        os.close(number)
    return Started(connection)


def _talked(numbers: Sequence[int], stdin: bytes, end: float) -> tuple[bytes, bytes] | None:
    """Write all of stdin and read all of stdout and stderr; None where that takes too long."""
    writing, *reading = numbers
    found = {number: bytearray() for number in reading}
    with selectors.DefaultSelector() as selector:
        for number in reading:
            selector.register(number, selectors.EVENT_READ)
        os.set_blocking(writing, False)
        selector.register(writing, selectors.EVENT_WRITE)
        rest = memoryview(stdin)
        while selector.get_map():
            for key, _ in selector.select(max(0.0, min(1.0, end - time.monotonic()))):
                number = key.fd
                if number == writing:
                    try:
                        rest = rest[os.write(writing, rest[:65536]) :] if rest else rest
                    except BrokenPipeError:
                        rest = rest[:0]
                    is_done = not rest
                else:
                    piece = os.read(number, 1 << 16)
                    found[number] += piece
                    is_done = not piece
                if is_done:
                    selector.unregister(number)
                    os.close(number)
            if time.monotonic() > end:
                for number in list(selector.get_map()):
                    os.close(int(number))
                return None
    out, err = found.values()
    return bytes(out), bytes(err)


class Forked:
    """Command lines in one environment and folder."""

    def __init__(self, env: Mapping[str, str], folder: Path) -> None:
        self._env, self._folder = env, folder

    def run(self, *args: str | bytes, stdin: bytes = b"", limit: float = LIMIT, **env: str) -> Done:
        return run(args, {**self._env, **env}, stdin, limit, self._folder)


@contextlib.contextmanager
def forked(home: Path, environment: Mapping[str, str]) -> Iterator[Forked]:
    """Yield what runs command lines with a home of its own, in the folder of that home."""
    yield Forked({**environment, "MIXCLI_HOME": str(home)}, home.parent)


def commands() -> Iterator[tuple[tuple[str, ...], click.Command]]:
    """Yield every command of the table and of the groups in it, by the words that call it."""
    from mixcli.cli import COMMANDS, cli

    for name in COMMANDS:
        command = cli.get_command(click.Context(cli), name)
        assert command is not None
        yield (name,), command
        if isinstance(command, click.Group):
            for inner, one in command.commands.items():
                yield (name, inner), one


@cache
def _place(more: tuple[str, ...]) -> str:
    """Start a process that forks and has imported `more` besides, once for each process of the tests; return where it listens."""
    folder = tempfile.mkdtemp(prefix="forked-")
    place = os.path.join(folder, "s")  # noqa: PTH118 - a socket's path is short
    process = subprocess.Popen(
        [sys.executable, "-m", "tests.support.forked", place, *more],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        env={**os.environ, "PYTHONPATH": os.fspath(ROOT), "OPENBLAS_NUM_THREADS": "1"},
        cwd=ROOT,
    )
    assert process.stdin and process.stdout
    process.stdout.readline()

    def end() -> None:
        process.communicate()
        shutil.rmtree(folder, ignore_errors=True)

    atexit.register(end)
    return place


def _serve(place: str, *more: str) -> None:
    """Fork for every connection until stdin is closed; return in the process that is to run a command line, with all set up for it."""
    from mixcli.cli import COMMANDS

    for module, _ in COMMANDS.values():
        importlib.import_module(module)
    for name in (*PRELOADED, *more):
        importlib.import_module(name)
    for name in list(sys.modules):  # it reads its settings from the environment when it is imported
        if name.split(".")[0] == "huggingface_hub":
            del sys.modules[name]
    if HOSTS in more:
        sys.modules[HOSTS].install()
    gc.collect()
    gc.freeze()  # what is never looked at again is never copied
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the tests' own; our parent closes stdin
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(place)
        listener.listen(64)
        sys.stdout.write("ready\n")
        sys.stdout.flush()
        while True:
            ready, _, _ = select.select([listener, 0], [], [])
            if 0 in ready:
                sys.exit()
            connection, _ = listener.accept()
            with connection:
                if os.fork() == 0:
                    listener.close()
                    _attend(connection)
                    return


def _attend(connection: socket.socket) -> None:
    """Read what is to be run and fork for it; in that process return, in this one tell how it ended."""
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    header, numbers, _, _ = socket.recv_fds(connection, 8, 3)
    size = int.from_bytes(header, "big")
    asked = json.loads(b"".join(iter(_Pieces(connection, size), b"")))
    pid = os.fork()
    if pid == 0:
        connection.close()
        _become(asked, numbers)
        return
    for number in (0, 1, 2, *numbers):
        os.close(number)
    connection.sendall(f"{pid}\n".encode())
    watched = os.pidfd_open(pid)
    ready, _, _ = select.select([watched, connection], [], [])
    if watched not in ready:  # the test waits no longer
        os.kill(pid, signal.SIGKILL)
    _, status = os.waitpid(pid, 0)
    with contextlib.suppress(OSError):
        connection.sendall(f"{os.waitstatus_to_exitcode(status)}\n".encode())
    os._exit(0)


class _Pieces:
    """Reads a number of bytes, piece by piece."""

    def __init__(self, connection: socket.socket, size: int) -> None:
        self._connection, self._left = connection, size

    def __call__(self) -> bytes:
        piece = self._connection.recv(min(self._left, 1 << 16)) if self._left else b""
        self._left -= len(piece)
        return piece


def _become(asked: Mapping[str, Any], numbers: "Sequence[int] | array.array[int]") -> None:
    """Take the streams, the environment and the folder of a command line."""
    signal.signal(signal.SIGINT, signal.default_int_handler)
    os.chdir(asked["folder"])
    os.environ.clear()
    os.environ.update({name: os.fsdecode(bytes.fromhex(value)) for name, value in asked["env"].items()})
    if len(numbers) == 1:
        os.setsid()
        fcntl.ioctl(numbers[0], termios.TIOCSCTTY, 0)
    for number in range(3):
        os.dup2(numbers[number % len(numbers)], number)
    for given in numbers:
        os.close(given)
    sys.argv = ["mixcli", *(os.fsdecode(bytes.fromhex(arg)) for arg in asked["args"])]
    sys.stdin = open(0, encoding="utf-8", closefd=False)  # noqa: SIM115
    sys.stdout = open(1, "w", encoding="utf-8", closefd=False)  # noqa: SIM115
    sys.stderr = open(2, "w", encoding="utf-8", errors="backslashreplace", buffering=1, closefd=False)  # noqa: SIM115


def _end(code: object) -> None:
    """End as Python does, but leave the modules to the system: to take them apart takes longer than most commands."""
    threading._shutdown()  # type: ignore[attr-defined]
    atexit._run_exitfuncs()
    with contextlib.suppress(OSError, ValueError):
        sys.stdout.flush()
    with contextlib.suppress(OSError, ValueError):
        sys.stderr.flush()
    os._exit(code if isinstance(code, int) else 0 if code is None else 1)


if __name__ == "__main__":
    _serve(*sys.argv[1:])
    if sys.argv[1:2] == [HOST]:
        sys.modules[HOSTS].serve(sys.argv[2])
    if moment := os.environ.pop(moments.VARIABLE, ""):
        moments.kill_at(moment)
    from mixcli.__main__ import main

    try:
        main()
    except SystemExit as left:
        _end(left.code)
    except BaseException:
        traceback.print_exc()
        _end(1)
