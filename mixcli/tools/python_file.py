"""Tools of a Python file: its public functions with type hints and a docstring, in a process of their own.

Stopping a function ends its process, whatever it does; the next call starts another one.
"""

import contextlib
import json
import os
import selectors
import signal
import subprocess
import time
from collections.abc import Mapping
from pathlib import Path
from typing import IO, Any

from mixcli.errors import UsageError
from mixcli.system import python_child
from mixcli.system.text import not_a_file, shown
from mixcli.tools.toolbox import CALL_SECONDS, FunctionSpec, ToolFailed

START_SECONDS = 60.0  # for the file to be imported
MAX_LINE = 1 << 26  # bytes of a result that are read
OURS = ("HF_TOKEN", "HUGGING_FACE_HUB_TOKEN")  # variables that only mixcli needs


class _Worker:
    """One process; `send` writes a request to it, `response` waits for the response."""

    def __init__(self, path: Path) -> None:
        ours, self._lifeline = os.pipe()
        try:
            self._process = subprocess.Popen(
                python_child.command(
                    "-m", "mixcli.system.lifeline", str(ours), "-m", "mixcli.tools.python_worker", str(path)
                ),
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,
                env={name: value for name, value in os.environ.items() if name not in OURS},
                start_new_session=True,  # Ctrl-C in the terminal is for the chat
                pass_fds=(ours,),
            )
        except BaseException:
            os.close(self._lifeline)
            raise
        finally:
            os.close(ours)
        self._rest = b""

    def send(self, request: Mapping[str, object]) -> None:
        stdin = self._process.stdin
        assert stdin
        with contextlib.suppress(BrokenPipeError):  # which the wait for its response explains
            stdin.write(json.dumps(request).encode() + b"\n")
            stdin.flush()

    def response(self, seconds: float) -> dict[str, Any]:
        """Return the next line; ToolFailed where none comes."""
        assert self._process.stdout
        deadline = time.monotonic() + seconds
        pieces: list[bytes] = []
        n_bytes = 0
        with selectors.DefaultSelector() as selector:
            selector.register(self._process.stdout, selectors.EVENT_READ)
            while not pieces or not pieces[-1].endswith(b"\n"):
                if not selector.select(max(0.0, deadline - time.monotonic())):
                    raise ToolFailed(f"no result after {seconds:.0f} s; it was stopped")
                pieces.append(os.read(self._process.stdout.fileno(), 1 << 16))
                n_bytes += len(pieces[-1])
                if not pieces[-1]:
                    raise ToolFailed(f"its process crashed: {self._end_of_it()}")
                if n_bytes > MAX_LINE:
                    raise ToolFailed(f"its result is longer than {MAX_LINE:,} bytes; it was stopped")
        found: dict[str, Any] = json.loads(b"".join(pieces))
        return found

    def close(self) -> None:
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait()
        streams: tuple[IO[bytes] | None, ...] = (self._process.stdin, self._process.stdout)
        for stream in streams:
            if stream:
                with contextlib.suppress(OSError):
                    stream.close()
        os.close(self._lifeline)

    def _end_of_it(self) -> str:
        code = self._process.wait()
        return f"signal {-code}" if code < 0 else f"exit code {code}"


class PythonTools:
    """The functions of one file (a ToolSource). Raises UsageError where the file has none, or cannot be imported."""

    def __init__(self, path: Path) -> None:
        if not path.is_file():
            raise UsageError(f"--tools: {not_a_file(path)}")
        self.name = path.name
        self._path = path
        self._worker: _Worker | None = None
        try:
            found = self._talk(None, START_SECONDS)
        except ToolFailed as error:
            found = {"error": str(error)}
        if "error" in found:
            self.close()
            raise UsageError(f"{shown(path)} cannot be imported: {found['error']}")
        self.specs = [FunctionSpec(**one) for one in found["tools"]]
        self.notes = [f"{self.name}: {why}, so it is not a tool" for why in found["skipped"]]
        if not self.specs:
            self.close()
            why = f" ({'; '.join(found['skipped'])})" if found["skipped"] else ""
            raise UsageError(
                f"{shown(path)} has no tools{why}; define a public function with type hints and a docstring"
            )

    def call(self, name: str, arguments: Mapping[str, object]) -> str:
        """Return what a function returned: a text as it is, anything else as JSON."""
        if self._worker is None and "error" in (again := self._talk(None, START_SECONDS)):
            self.close()
            raise ToolFailed(f"{self.name} cannot be imported any more: {again['error']}")
        found = self._talk({"name": name, "arguments": arguments}, CALL_SECONDS)
        if "error" in found:
            raise ToolFailed(found["error"])
        result: str = found["result"]
        return result

    def close(self) -> None:
        """End the process."""
        worker, self._worker = self._worker, None
        if worker is not None:
            worker.close()

    def _talk(self, request: Mapping[str, object] | None, seconds: float) -> dict[str, Any]:
        """Return the response to a request, or the first line of a new process; a process that does not respond is ended."""
        try:
            if self._worker is None:
                self._worker = _Worker(self._path)
            if request is not None:
                self._worker.send(request)
            return self._worker.response(seconds)
        except BaseException:
            self.close()
            raise


__all__ = ["PythonTools"]
