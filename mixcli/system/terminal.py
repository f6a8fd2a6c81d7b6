"""The terminal of a program that reads keys itself: who edits what is typed, and what Ctrl-Z leaves to the shell."""

import os
import signal
import sys
import termios
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, suppress
from types import FrameType

from mixcli.system.console import console

SHOW_CURSOR, HIDE_CURSOR = "\x1b[?25h", "\x1b[?25l"


@contextmanager
def lent_while_stopped(lend: Callable[[], AbstractContextManager[None]]) -> Iterator[None]:
    """Let Ctrl-Z stop this program within `lend()`, which has the terminal as shells expect it, and `fg` continue it."""
    if not console.is_terminal(sys.stdout) or signal.getsignal(signal.SIGTSTP) is not signal.SIG_DFL:
        yield
        return

    def stop(number: int, _frame: FrameType | None) -> None:
        with lend():
            signal.signal(number, signal.SIG_DFL)
            os.kill(os.getpid(), number)
            signal.signal(number, stop)

    signal.signal(signal.SIGTSTP, stop)
    try:
        yield
    finally:
        signal.signal(signal.SIGTSTP, signal.SIG_DFL)


@contextmanager
def lines_edited(*, edited: bool) -> Iterator[None]:
    """Let the terminal itself show and edit what is typed, or not, and set it back afterwards."""
    if not console.is_terminal(sys.stdin):
        yield
        return
    handle = sys.stdin.fileno()
    before = termios.tcgetattr(handle)
    during = termios.tcgetattr(handle)
    editing = termios.ECHO | termios.ICANON
    during[3] = during[3] | editing if edited else during[3] & ~editing
    termios.tcsetattr(handle, termios.TCSANOW, during)
    try:
        yield
    finally:
        with suppress(termios.error):  # the terminal is gone
            termios.tcsetattr(handle, termios.TCSANOW, before)


def write(sequence: str) -> None:
    """Write a control sequence to the terminal on stdout at once, past what Python keeps: a signal may come while Python writes."""
    os.write(sys.stdout.fileno(), sequence.encode())
