"""Many command lines in little time: a process that has imported mixcli already forks for each of them.

Every run is a process of its own with its own streams, as `mixcli_process` starts them, only without the second of imports.
"""

import importlib
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
import traceback
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import IO, Any, Self

import click

LIMIT = 60.0  # seconds for one command line


@dataclass(frozen=True)
class Done:
    """How a command line ended; -1 is one that had to be killed."""

    code: int
    out: bytes
    err: bytes

    @property
    def sentence(self) -> str:
        return self.err.decode("utf-8", "replace")


class Forked:
    """The process that forks; `run` gives how one command line ended."""

    def __init__(self, env: Mapping[str, str], folder: Path) -> None:
        root = Path(__file__).resolve().parents[2]
        self._process = subprocess.Popen(
            [sys.executable, "-m", "tests.support.forked"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            env={**env, "PYTHONPATH": str(root)},
            cwd=folder,
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, _kind: type[BaseException] | None, _error: BaseException | None, _trace: TracebackType | None
    ) -> None:
        self._process.communicate()

    def run(self, *args: str | bytes, stdin: bytes = b"", limit: float = LIMIT, **env: str) -> Done:
        asked = {
            "args": [os.fsencode(arg).hex() for arg in args],
            "stdin": stdin.hex(),
            "env": env,
            "limit": limit,
        }
        assert self._process.stdin and self._process.stdout
        self._process.stdin.write(json.dumps(asked).encode() + b"\n")
        self._process.stdin.flush()
        told = json.loads(self._process.stdout.readline())
        return Done(told["code"], bytes.fromhex(told["out"]), bytes.fromhex(told["err"]))


def commands() -> Iterator[tuple[tuple[str, ...], click.Command]]:
    """Give every command of the table and of the groups in it, by the words that call it."""
    from mixcli.cli import COMMANDS, cli

    for name in COMMANDS:
        command = cli.get_command(click.Context(cli), name)
        assert command is not None
        yield (name,), command
        if isinstance(command, click.Group):
            for inner, one in command.commands.items():
                yield (name, inner), one


def _serve() -> None:
    """Answer each line of stdin with how that command line ended."""
    from mixcli.cli import COMMANDS

    for module, _ in COMMANDS.values():
        importlib.import_module(module)
    for name in ("mixcli.store.store", "mixcli.pull.pull", "mixcli.planning.report", "mixcli.planning.machines", "mixcli.chat.loop", "quantize", "mixcli.run.modes", "mixcli.request.output_format", "mixcli.chat.sessions", "mixcli.batch.batch", "quantize.conversion", "quantize.recipe", "mixcli.store.import_", "mixcli.store.removal"):  # fmt: skip
        importlib.import_module(name)
    for line in sys.stdin.buffer:
        with tempfile.TemporaryFile() as out, tempfile.TemporaryFile() as err:
            code = _one(json.loads(line), out, err)
            out.seek(0)
            err.seek(0)
            answer = {"code": code, "out": out.read().hex(), "err": err.read().hex()}
        sys.stdout.write(json.dumps(answer) + "\n")
        sys.stdout.flush()


def _one(asked: Mapping[str, Any], out: IO[bytes], err: IO[bytes]) -> int:
    with tempfile.TemporaryFile() as piped:
        piped.write(bytes.fromhex(asked["stdin"]))
        piped.seek(0)
        pid = os.fork()
        if pid == 0:
            os.setsid()
            for number, file in enumerate((piped, out, err)):
                os.dup2(file.fileno(), number)
            _child([os.fsdecode(bytes.fromhex(arg)) for arg in asked["args"]], asked["env"])
        return _waited(pid, asked["limit"])


def _waited(pid: int, limit: float) -> int:
    end = time.monotonic() + limit
    while time.monotonic() < end:
        found, status = os.waitpid(pid, os.WNOHANG)
        if found:
            return os.waitstatus_to_exitcode(status)
        time.sleep(0.002)
    os.killpg(pid, signal.SIGKILL)
    os.waitpid(pid, 0)
    return -1


def _child(args: Sequence[str], env: Mapping[str, str]) -> None:
    os.environ.update(env)
    sys.argv = ["mixcli", *args]
    sys.stdin = open(0, encoding="ascii", closefd=False)  # noqa: SIM115
    sys.stdout = open(1, "w", encoding="ascii", closefd=False)  # noqa: SIM115
    sys.stderr = open(2, "w", encoding="ascii", errors="backslashreplace", closefd=False)  # noqa: SIM115
    code: Any = 1
    try:
        from mixcli.cli import main

        main()
    except SystemExit as left:
        code = left.code
    except BaseException:
        traceback.print_exc()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code if isinstance(code, int) else 1)


@contextmanager
def forked(home: Path, environment: Mapping[str, str]) -> Iterator[Forked]:
    """Start the process that forks, with a home of its own."""
    with Forked({**environment, "MIXCLI_HOME": str(home)}, home.parent) as process:
        yield process


if __name__ == "__main__":
    _serve()
