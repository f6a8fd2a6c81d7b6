"""A terminal for tests: a real pseudo-terminal, and pyte as what people look at, scrollback included.

It answers what terminals answer (the cursor's position), and keeps every byte that it was sent.
"""

import os
import re
import sys
import time
from collections.abc import Callable
from itertools import islice
from pathlib import Path

import pexpect
import pyte

TIMEOUT = 60.0  # seconds; a busy machine is slow, and nothing here proves anything by time


class _Screen(pyte.HistoryScreen):
    """pyte's screen, which hands answers to the program back."""

    answer: Callable[[str], object] = staticmethod(lambda _data: None)

    def write_process_input(self, data: str) -> None:
        self.answer(data)


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
        self.process: pexpect.spawn[str] = pexpect.spawn(
            "/bin/sh" if shell else sys.executable,
            ["-c", shell] if shell else ["-m", "mixcli", *args],
            encoding="utf-8",
            codec_errors="replace",
            dimensions=(rows, columns),
            cwd=str(home),
            env={**keep, "MIXCLI_HOME": str(home), "TERM": "xterm-256color", **env},
        )
        self.process.delaybeforesend = None
        self.process.ptyproc.delayafterclose = self.process.ptyproc.delayafterterminate = 0.01
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
