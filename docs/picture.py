"""Draw docs/session.svg and docs/chat.svg: real sessions in a real pseudo-terminal, as rich draws terminals.

Run by `make picture`; it needs the demo model in the store.
"""

import io
import os
import re
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import pexpect
import pyte
from rich.console import Console
from rich.style import Style
from rich.text import Text

HERE = Path(__file__).resolve().parent
PROMPT = "$ "
WIDTH = 100
DIM, GREY = 2, 90  # as SGR writes them
TIMEOUT = 300.0  # seconds
COMMANDS = (
    "mixcli list",
    'echo "What is the capital of France?" | mixcli run -m demo',
    'mixcli run -m demo "Name three rivers." --max-tokens 40 --stats',
    "mixcli ps",
)
ASKED = "What is the capital of France?"
CHAT = (
    "Write a Python function that reverses a string. Only the code, please.",
    "What is the capital of France?",
    "/stats",
    "/context",
)


class Screen(pyte.Screen):
    """A screen that answers where its cursor is, as terminals do, and shows in grey what is dim, which pyte does not know."""

    answer: Callable[[str], object] = staticmethod(lambda _data: None)

    def write_process_input(self, data: str) -> None:
        self.answer(data)

    def select_graphic_rendition(self, *attributes: int) -> None:
        # only where it stands alone: behind 38 or 48 a 2 is part of a colour
        super().select_graphic_rendition(*((GREY,) if attributes == (DIM,) else attributes))


class Terminal:
    """A shell on a screen, driven by what is seen on it."""

    def __init__(self, rows: int, **env: str) -> None:
        self.screen = Screen(WIDTH, rows)
        self._stream = pyte.Stream(self.screen)
        path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
        self._shell = pexpect.spawn(
            "/bin/sh",
            encoding="utf-8",
            dimensions=(rows, WIDTH),
            env={**os.environ, "PS1": PROMPT, "PATH": path, "TERM": "xterm-256color", **env},
        )
        self.screen.answer = self._shell.send
        self.wait_for(re.escape(PROMPT.strip()))

    def enter(self, line: str, then: str) -> None:
        """Type a line and wait until the row of the cursor is the prompt `then`, below what was typed."""
        before = self.screen.cursor.y
        self._shell.send(line)
        self._until(lambda: line[-30:] in " ".join(self.screen.display))
        self._shell.send("\r")
        self._until(lambda: self.screen.cursor.y > before and self._row() in (then.strip(), PROMPT.strip()))
        if self._row() != then.strip():
            sys.exit(f"{line!r} ended early:\n" + "\n".join(row.rstrip() for row in self.screen.display))

    def wait_for(self, prompt: str) -> None:
        """Wait until the row of the cursor is a prompt."""
        self._until(lambda: re.fullmatch(prompt, self._row()))

    def picture(self, path: Path, title: str) -> None:
        """Write what stands on the screen, with its colours, without the empty rows."""
        self._until(lambda: False, seconds=1.0)
        console = Console(record=True, width=WIDTH, file=io.StringIO(), force_terminal=True)
        rows = [self._line(row) for row in range(self.screen.lines)]
        used = max(row for row, line in enumerate(rows) if line.plain)
        for line in rows[: used + 1]:
            console.print(line)
        path.write_text(console.export_svg(title=title), "utf-8")

    def _row(self) -> str:
        return self.screen.display[self.screen.cursor.y].strip()

    def _until(self, holds: Callable[[], object], seconds: float = TIMEOUT) -> None:
        deadline = time.monotonic() + seconds
        while not holds():
            if time.monotonic() > deadline:
                if seconds == TIMEOUT:
                    sys.exit("it did not come this far:\n" + "\n".join(self.screen.display))
                return
            try:
                self._stream.feed(self._shell.read_nonblocking(65536, 0.1))
            except pexpect.TIMEOUT:
                continue

    def _line(self, row: int) -> Text:
        line = Text()
        for column in range(WIDTH):
            cell = self.screen.buffer[row][column]
            color = None if cell.fg == "default" else cell.fg.replace("brown", "yellow")
            color = color and color.replace("bright", "bright_")
            line.append(cell.data, Style(color=color, bold=cell.bold, reverse=cell.reverse))
        line.rstrip()
        return line


def session() -> None:
    """The command line: list, run, ps, and the beginning of a chat."""
    terminal = Terminal(60)
    for command in COMMANDS:
        terminal.enter(command, PROMPT)
    terminal.enter("mixcli chat -m demo --temperature 0 --ephemeral", ">>>")
    terminal.enter(ASKED, ">>>")
    terminal.enter("/quit", PROMPT)
    terminal.picture(HERE / "session.svg", "mixcli")


def chat() -> None:
    """A chat: code, a fact, what that cost, and what the model sees."""
    with tempfile.TemporaryDirectory() as home:
        models = Path(os.environ.get("MIXCLI_HOME", Path.home() / ".local" / "share" / "mixcli"))
        store = models / "data" / "models" if "MIXCLI_HOME" in os.environ else models / "models"
        (Path(home) / "data").mkdir()
        (Path(home) / "data" / "models").symlink_to(store)
        terminal = Terminal(36, MIXCLI_HOME=home)
        terminal.enter("mixcli chat -m demo --temperature 0 --keep-alive 0", ">>>")
        for line in CHAT:
            terminal.enter(line, ">>>")
        terminal.picture(HERE / "chat.svg", "mixcli chat")
        terminal.enter("/quit", PROMPT)


if __name__ == "__main__":
    session()
    chat()
