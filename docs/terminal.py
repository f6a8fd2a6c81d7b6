"""A real shell in a pseudo-terminal: its screen as text and as an SVG picture. Used by docs/picture.py and docs/outputs.py."""

import io
import os
import re
import sys
import time
from collections.abc import Callable, Sequence
from html import escape
from pathlib import Path

import pexpect
import pyte
from rich._export_format import CONSOLE_SVG_FORMAT
from rich.console import Console
from rich.style import Style
from rich.text import Text

PROMPT = "$ "
DIM, GREY = 2, 90  # as SGR writes them
TIMEOUT = 120.0  # seconds
GAP = 12  # pixels between two panes
# The fonts of the reader's own machine: a picture loads nothing from the network.
SVG = (
    re.sub(r"@font-face \{\{.*?\}\}", "", CONSOLE_SVG_FORMAT, flags=re.S)
    .replace("Fira Code, monospace", "ui-monospace, Menlo, Consolas, 'DejaVu Sans Mono', monospace")
    .replace("font-family: arial", "font-family: system-ui, 'DejaVu Sans', sans-serif")
)


class Screen(pyte.Screen):
    """A screen that reports its cursor position as terminals do, and shows dim text, which pyte does not know, in grey."""

    answer: Callable[[str], object] = staticmethod(lambda _data: None)

    def write_process_input(self, data: str) -> None:
        self.answer(data)

    def select_graphic_rendition(self, *attributes: int) -> None:
        # only where it stands alone: after 38 or 48 a 2 is part of a color
        super().select_graphic_rendition(*((GREY,) if attributes == (DIM,) else attributes))


class Terminal:
    """A program on a screen: a shell that is typed into, or one command that runs to its end."""

    def __init__(
        self, rows: int, width: int, command: str = "", folder: Path | None = None, **env: str
    ) -> None:
        self.width = width
        self.screen = Screen(width, rows)
        self._stream = pyte.Stream(self.screen)
        path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
        self._child = pexpect.spawn(
            "/bin/bash" if command else "/bin/sh",
            ["-c", command] if command else [],
            encoding="utf-8",
            dimensions=(rows, width),
            cwd=folder,
            env={**os.environ, "PS1": PROMPT, "PATH": path, "TERM": "xterm-256color", **env},
        )
        self.screen.answer = self._child.send
        if not command:
            self.wait_for(re.escape(PROMPT.strip()))

    def enter(self, line: str, then: str) -> None:
        """Type a line and wait until the row of the cursor is the prompt `then`, below what was typed."""
        before = self.screen.cursor.y
        self._child.send(line)
        typed = "".join(line[-30:].split())
        self._until(lambda: typed in "".join("".join(self.screen.display).split()))
        self._child.send("\r")
        self._until(lambda: self.screen.cursor.y > before and self._row() in (then.strip(), PROMPT.strip()))
        if self._row() != then.strip():
            sys.exit(f"{line!r} ended early:\n" + "\n".join(row.rstrip() for row in self.screen.display))

    def wait_for(self, prompt: str) -> None:
        """Wait until the row of the cursor is a prompt."""
        self._until(lambda: re.fullmatch(prompt, self._row()))

    def output(self) -> str:
        """Return what a command left on the screen when it has ended, without empty rows after it."""
        self._until(self._child.eof)
        self._child.close()
        return "\n".join(row.rstrip() for row in self.screen.display).rstrip()

    def rows(self) -> list[Text]:
        """Return what stands on the screen, with its colors, without the empty rows after it."""
        self._until(lambda: False, seconds=1.0)
        found = [self._line(row) for row in range(self.screen.lines)]
        used = max(row for row, line in enumerate(found) if line.plain)
        return found[: used + 1]

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
                self._stream.feed(self._child.read_nonblocking(65536, 0.1))
            except pexpect.TIMEOUT:
                continue
            except pexpect.EOF:
                self._child.flag_eof = True

    def _line(self, row: int) -> Text:
        line = Text()
        for column in range(self.width):
            cell = self.screen.buffer[row][column]
            color = None if cell.fg == "default" else cell.fg.replace("brown", "yellow")
            color = color and color.replace("bright", "bright_")
            line.append(cell.data, Style(color=color, bold=cell.bold, reverse=cell.reverse))
        line.rstrip()
        return line


def pane(rows: Sequence[Text], width: int, title: str, name: str) -> str:
    """Return rows as the SVG of a terminal window; `name` is unique in the picture."""
    console = Console(record=True, width=width, file=io.StringIO(), force_terminal=True)
    for line in rows:
        console.print(line, no_wrap=True, overflow="ignore", crop=False)
    return console.export_svg(title=title, code_format=SVG, unique_id=name)


def save(path: Path, description: str, *panes: str) -> None:
    """Write panes side by side as one picture, with a description for readers who do not see it."""
    sizes = [tuple(map(float, re.findall(r'viewBox="0 0 ([\d.]+) ([\d.]+)"', one)[0])) for one in panes]
    width, height = sum(one[0] for one in sizes) + GAP * (len(panes) - 1), max(one[1] for one in sizes)
    left, parts = 0.0, []
    for one, (wide, high) in zip(panes, sizes, strict=True):
        place = f'<svg x="{left:g}" y="0" width="{wide:g}" height="{high:g}" '
        parts.append(one.replace("<svg ", place, 1))
        left += wide + GAP
    path.write_text(
        f'<svg viewBox="0 0 {width:g} {height:g}" xmlns="http://www.w3.org/2000/svg" role="img">\n'
        f"<title>{escape(description)}</title>\n" + "\n".join(parts) + "\n</svg>\n",
        "utf-8",
    )
