"""A terminal for tests: a real pseudo-terminal, and pyte as what people look at, scrollback included.

It answers what terminals answer (the cursor's position), and keeps every byte that it was sent.
"""

import codecs
import fcntl
import os
import re
import select
import struct
import sys
import termios
import time
from collections.abc import Callable, Mapping, Sequence
from itertools import islice
from pathlib import Path

import pexpect
import pyte

from tests.support import forked

TIMEOUT = 60.0  # seconds; a busy machine is slow, and nothing here proves anything by time


class _Screen(pyte.HistoryScreen):
    """pyte's screen, which hands answers to the program back."""

    answer: Callable[[str], object] = staticmethod(lambda _data: None)

    def write_process_input(self, data: str) -> None:
        self.answer(data)


def _spawned(
    program: str, args: list[str], rows: int, columns: int, folder: Path, env: Mapping[str, str]
) -> "pexpect.spawn[str]":
    process: pexpect.spawn[str] = pexpect.spawn(
        program,
        args,
        encoding="utf-8",
        codec_errors="replace",
        dimensions=(rows, columns),
        cwd=str(folder),
        env=env,
    )
    process.delaybeforesend = None
    process.ptyproc.delayafterclose = process.ptyproc.delayafterterminate = 0.01
    return process


class ForkedOnTerminal:
    """A forked command line whose controlling terminal is ours, with what is used here of pexpect's spawn."""

    def __init__(
        self, args: Sequence[str], rows: int, columns: int, folder: Path, env: Mapping[str, str]
    ) -> None:
        self.child_fd, theirs = os.openpty()
        self.setwinsize(rows, columns)
        self._started = forked.begin(args, env, folder, [theirs])
        self._decoder = codecs.getincrementaldecoder("utf-8")("replace")
        self.pid = self._started.pid
        self.exitstatus: int | None = None
        self.signalstatus: int | None = None

    def setwinsize(self, rows: int, columns: int) -> None:
        fcntl.ioctl(self.child_fd, termios.TIOCSWINSZ, struct.pack("4H", rows, columns, 0, 0))

    def send(self, text: str) -> int:
        return os.write(self.child_fd, text.encode())

    def read_nonblocking(self, size: int, seconds: float) -> str:
        if not select.select([self.child_fd], [], [], seconds)[0]:
            raise pexpect.TIMEOUT("nothing to read")
        try:
            raw = os.read(self.child_fd, size)
        except OSError:  # as Linux says that nobody has the other end any longer
            raw = b""
        if not raw:
            raise pexpect.EOF("it has ended")
        return self._decoder.decode(raw)

    def kill(self, number: int) -> None:
        os.kill(self.pid, number)

    def wait(self) -> int | None:
        code = self._started.wait()
        self.exitstatus, self.signalstatus = (code, None) if code >= 0 else (None, -code)
        return self.exitstatus

    def close(self, force: bool = False) -> None:
        """Close the terminal; a program that reads from it still has time to end only without `force`."""
        if self.child_fd < 0:
            return
        if not force:
            self.wait()
        os.close(self.child_fd)
        self.child_fd = -1
        self._started.__exit__()


class Terminal:
    """`mixcli ARGS`, or a line for the shell, on a screen of `rows` by `columns`."""

    def __init__(
        self, home: Path, *args: str, rows: int = 24, columns: int = 80, shell: str = "", **env: str
    ) -> None:
        keep = {
            key: value
            for key, value in os.environ.items()
            if not key.startswith(("MIXCLI_", "XDG_", "NO_COLOR", "COLUMNS", "LINES"))
            or key == "MIXCLI_MEASURE"
        }
        self.raw = ""
        self._past: list[str] = []  # the lines that have left the screen
        self.screen = _Screen(columns, rows, history=100_000)
        self._stream = pyte.Stream(self.screen)
        whole = {**keep, "MIXCLI_HOME": str(home), "TERM": "xterm-256color", **env}
        self.process: pexpect.spawn[str] | ForkedOnTerminal
        if shell or not forked.can_fork(env):
            command = ("/bin/sh", ["-c", shell]) if shell else (sys.executable, ["-m", "mixcli", *args])
            self.process = _spawned(*command, rows, columns, home, whole)
        else:
            self.process = ForkedOnTerminal(args, rows, columns, home, whole)
        self.screen.answer = self.process.send

    def __enter__(self) -> "Terminal":
        return self

    def __exit__(self, *_: object) -> None:
        self.process.close(force=True)

    # what is seen

    @property
    def display(self) -> list[str]:
        """Give the rows of the screen, without the blanks at their ends."""
        return [row.rstrip() for row in self.screen.display]

    @property
    def lines(self) -> list[str]:
        """Give everything that was ever printed: scrollback and screen."""
        width, top = self.screen.columns, self.screen.history.top
        if len(top) < len(self._past):
            self._past.clear()
        for row in islice(top, len(self._past), None):
            self._past.append("".join(row[i].data for i in range(width)).rstrip())
        return [*self._past, *self.display]

    @property
    def text(self) -> str:
        return "\n".join(self.lines)

    # what is done

    def type(self, text: str) -> None:
        """Press keys."""
        self.process.send(text)

    def type_bytes(self, raw: bytes) -> None:
        """Press keys that send bytes of any encoding."""
        os.write(self.process.child_fd, raw)

    def enter(self, text: str) -> None:
        """Type a line, wait until it stands there, and press Enter."""
        self.type(text)
        self.wait_for(lambda: text.strip()[-20:] in "".join(self.display))
        self.type("\r")

    def paste(self, text: str) -> None:
        """Paste as terminals do where the program asked for brackets, and in the raw where it did not."""
        bracketed = self.raw.rfind("\x1b[?2004h") > self.raw.rfind("\x1b[?2004l")
        self.type(f"\x1b[200~{text}\x1b[201~" if bracketed else text)

    def resize(self, rows: int, columns: int) -> None:
        self.read(0.05)
        self.screen.resize(rows, columns)
        self.process.setwinsize(rows, columns)

    def read(self, seconds: float = 0.05) -> bool:
        """Take what the program has written, waiting so long for the first of it; False when it has ended."""
        try:
            data = self.process.read_nonblocking(65536, seconds)
        except pexpect.TIMEOUT:
            return True
        except pexpect.EOF:
            return False
        self.raw += data
        self._stream.feed(data)
        return True

    def wait_for(self, seen: Callable[[], object] | str, seconds: float = TIMEOUT) -> None:
        """Read until a text is on the screen or something holds."""
        holds = (lambda: seen in self.text) if isinstance(seen, str) else seen
        deadline = time.monotonic() + seconds
        while not holds():
            alive = self.read()
            if holds():
                return
            assert alive, f"it ended before {seen!r}:\n{self.text}"
            assert time.monotonic() < deadline, f"no {seen!r} in {seconds} s:\n{self.text}"

    def wait_for_prompt(self, n: int) -> None:
        """Wait for the prompt to stand there for the n-th time, ready for input."""
        self.wait_for(lambda: len(self.prompts()) >= n and self.ready())

    def prompts(self) -> list[str]:
        """Give what stands behind each prompt."""
        return [line[4:] for line in self.lines if re.match(r">>>( |$)", line)]

    def ready(self) -> bool:
        """Tell whether the cursor stands behind an empty prompt."""
        return self.display[self.screen.cursor.y] == ">>>" and self.screen.cursor.x == 4

    def wait_for_end(self, seconds: float = TIMEOUT) -> int:
        """Wait until the program has ended and give its exit code."""
        deadline = time.monotonic() + seconds
        while self.read():
            assert time.monotonic() < deadline, f"it does not end:\n{self.text}"
        self.process.close()
        assert self.process.exitstatus is not None, f"signal {self.process.signalstatus}"
        return self.process.exitstatus
