"""The whole terminal for pictures that change: its alternate screen, and keys as they are pressed."""

import os
import select
import shutil
import sys
import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING

from mixcli.system.console import console
from mixcli.system.terminal import HIDE_CURSOR, SHOW_CURSOR, lent_while_stopped, lines_edited, write
from mixcli.system.text import strip_controls

if TYPE_CHECKING:
    from rich.live import Live

POLL_INTERVAL = 0.1  # seconds between two looks at the size of the terminal
ENTER_SCREEN, LEAVE_SCREEN = "\x1b[?1049h", "\x1b[?1049l"
DUMB = ("dumb", "unknown", "")

Line = Sequence[tuple[str, str]]  # pieces of text, each with a style, as in console.picture


def can_draw() -> bool:
    """Return whether stdout is a terminal on which a picture can be drawn again."""
    return console.is_terminal(sys.stdout) and os.environ.get("TERM", "") not in DUMB


class Screen:
    """The terminal on stdout while it is held, and the keys of the one on stdin."""

    def __init__(self, live: "Live") -> None:
        self._live = live
        self._size = self.size

    @property
    def size(self) -> tuple[int, int]:
        """Return the columns and rows as they are now."""
        try:
            return console.width(sys.stdout), max(1, os.get_terminal_size(sys.stdout.fileno()).lines)
        except OSError:
            return console.width(sys.stdout), shutil.get_terminal_size().lines

    def draw(self, lines: Iterable[Line]) -> None:
        """Draw lines from the top; what is longer or lower than the screen is cut off."""
        from rich.text import Text

        self._size = self.size
        self._live.console.size = self._size
        rows = [Text.assemble(*((strip_controls(text), style) for text, style in line)) for line in lines]
        picture = Text("\n", no_wrap=True, overflow="ellipsis").join(rows)
        picture.no_wrap, picture.overflow = True, "ellipsis"
        self._live.update(picture, refresh=True)

    def wait(self, seconds: float) -> str:
        """Return the keys that are pressed within so many seconds; "" for none, or as soon as the terminal has another size.

        The end of stdin is Ctrl-D.
        """
        deadline = time.monotonic() + seconds
        while (left := deadline - time.monotonic()) > 0 and self.size == self._size:
            if not console.is_terminal(sys.stdin):
                time.sleep(min(left, POLL_INTERVAL))
            elif select.select([sys.stdin], [], [], min(left, POLL_INTERVAL))[0]:
                return os.read(sys.stdin.fileno(), 64).decode("utf-8", "replace") or "\x04"
        return ""

    @contextmanager
    def lent(self) -> Iterator[None]:
        """Lend the shell the terminal as it was before; then the next picture is drawn at once."""
        write(LEAVE_SCREEN + SHOW_CURSOR)
        with lines_edited(edited=True):
            yield
        write(ENTER_SCREEN + HIDE_CURSOR)
        self._size = (0, 0)


@contextmanager
def held_screen() -> Iterator[Screen]:
    """Hold the terminal while the block runs; then everything looks as before, also after Ctrl-C, which stays a signal."""
    from rich.live import Live

    with lines_edited(edited=False):
        terminal = console.rich(sys.stdout)
        live = Live(
            console=terminal, screen=True, auto_refresh=False, redirect_stdout=False, redirect_stderr=False
        )
        screen = Screen(live)
        with live, lent_while_stopped(screen.lent):
            yield screen
