"""Draw an answer on the terminal, append-only.

What is finished is printed once, forever; only the unfinished tail and a few lines of status live below it and are drawn again. The
cursor rests at the tail's first cell, so that erasing needs no counting: whatever a resize did to the rows, everything below the
cursor is the tail. While the tail is drawn the terminal does not wrap, so its height is what was counted.
"""

import os
from collections.abc import Sequence
from typing import Protocol, TextIO

from mixcli.chat.view.markdown import Line, Markdown, cut
from mixcli.system.console import console
from mixcli.system.formatting import counted
from mixcli.system.text import strip_controls

MIN_WIDTH, MIN_TAIL = 20, 2
THOUGHT_ROWS = 3  # of the reasoning that is being written
ROOM = 2  # rows of the screen that the tail never takes
SIZE = os.terminal_size((80, 24))

ERASE_BELOW = "\r\x1b[J"
NO_WRAP, WRAP = "\x1b[?7l", "\x1b[?7h"
HIDE, SHOW = "\x1b[?25l", "\x1b[?25h"
DIM, PLAIN = "\x1b[2m", "\x1b[0m"


class View(Protocol):
    """Where an answer is shown."""

    def feed(self, text: str) -> None:
        """Take a piece of the answer."""

    def think(self, text: str) -> None:
        """Take a piece of the reasoning that precedes it."""

    def status(self, *lines: str) -> None:
        """Show status lines below the answer."""

    def close(self) -> None:
        """Finish the output, once: the answer has ended."""


class PlainView:
    """The text as it comes: for pipes, dumb terminals and --plain."""

    def __init__(self) -> None:
        self._last = ""

    def feed(self, text: str) -> None:
        console.write(text)
        self._last = text or self._last

    def think(self, text: str) -> None:
        """Ignore reasoning: a pipe gets the answer only."""

    def status(self, *lines: str) -> None:
        """Ignore status lines, as reasoning."""

    def close(self) -> None:
        if self._last and not self._last.endswith("\n"):
            self.feed("\n")


class LiveView:
    """Markdown on a terminal that can move its cursor."""

    def __init__(self, out: TextIO) -> None:
        self._out = out
        self._rich = console.rich(out)
        self._markdown = Markdown()
        self._source = ""  # the unfinished line
        self._status: tuple[str, ...] = ()
        self._blanks = 0  # empty rows that are printed when something follows them
        self._begun = False
        self._thought = ""
        self._is_open = True
        self._out.write(HIDE)

    def think(self, text: str) -> None:
        """Show the last lines of the reasoning dimmed; one line stays of it when the answer begins."""
        self._thought += strip_controls(text)
        self.feed("")

    def feed(self, text: str) -> None:
        folded = self._folded() if text.strip() else []
        self._source += strip_controls(text)
        if not self._begun:  # models like to begin with empty lines
            self._source = self._source.lstrip("\n")
            self._begun = bool(self._source)
        *lines, self._source = self._source.split("\n")
        width, height = self._size()
        finished = [row for line in lines for row in self._finished(self._markdown.line(line), width)]
        room = max(MIN_TAIL, height - ROOM - len(self._status))
        finished += self._overhang(width, room)
        self._draw(
            [*folded, *finished], self._rows(self._markdown.preview(self._source), width)[-room:], width
        )

    def status(self, *lines: str) -> None:
        if lines == self._status:
            return
        self._status = lines
        self.feed("")

    def close(self) -> None:
        if not self._is_open:
            return
        self._is_open = False
        self._status = ()
        width, _ = self._size()
        lines = self._markdown.line(self._source) if self._source else []
        self._source = ""
        folded = self._folded()
        self._draw([*folded, *self._finished([*lines, *self._markdown.close()], width)], [], width)
        self._out.write(SHOW)
        self._out.flush()

    def _folded(self) -> list[str]:
        """Return the line that stays of the reasoning, once."""
        n_words, self._thought = len(self._thought.split()), ""
        return [f"{DIM}({counted(n_words, 'word')} of reasoning){PLAIN}", ""] if n_words else []

    def _overhang(self, width: int, room: int) -> list[str]:
        """Print the head of an unfinished line that has become taller than the tail may be."""
        rows = self._rows(self._markdown.preview(self._source), width)
        if len(rows) <= room:
            return []
        halves = self._markdown.split(self._source, width, len(rows) - room // 2)
        if halves is None:
            return []
        head, self._source = halves
        return self._finished(self._markdown.line(head), width)

    def _finished(self, lines: Sequence[Line], width: int) -> list[str]:
        """Return the rows that are printed forever; exact lines stay whole, so that they are copied as they are."""
        rows = [""] * self._blanks
        for line in lines:
            rows += [self._ansi(row) for row in ([line.text] if line.exact else line.rows(width))]
        n = len(rows)
        while rows and not rows[-1]:
            rows.pop()
        self._blanks = n - len(rows)
        return rows

    def _rows(self, lines: Sequence[Line], width: int) -> list[str]:
        rows = [self._ansi(row) for line in lines for row in line.rows(width)]
        return [*[""] * self._blanks, *rows] if rows else []

    def _draw(self, finished: Sequence[str], tail: Sequence[str], width: int) -> None:
        """Write everything at once: what is finished, then the tail, then back to the tail's beginning."""
        thought = [line for line in self._thought.split("\n") if line.strip()][-THOUGHT_ROWS:]
        dimmed = [*(line[-width + 1 :] for line in thought), *self._status]
        below = [*tail, *(f"{DIM}{cut(strip_controls(line), width)}{PLAIN}" for line in dimmed)]
        parts = [ERASE_BELOW, *(f"{row}\n" for row in finished)]
        if below:
            up = f"\x1b[{len(below) - 1}A" if len(below) > 1 else ""
            parts += [NO_WRAP, "\n".join(below), WRAP, up, "\r"]
        self._out.write("".join(parts))
        self._out.flush()

    def _ansi(self, text: object) -> str:
        with self._rich.capture() as captured:
            self._rich.print(text, end="", soft_wrap=True)
        return captured.get()

    def _size(self) -> tuple[int, int]:
        try:
            size = os.get_terminal_size(self._out.fileno())
        except OSError:
            size = SIZE
        return max(MIN_WIDTH, size.columns or SIZE.columns), size.lines or SIZE.lines
