"""What the terminal does with keys between two prompts of a chat, and while another program has it."""

import os
import re
import select
import signal
import sys
import termios
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from types import FrameType

from mixcli.system.console import console
from mixcli.system.stdin import decode
from mixcli.system.text import strip_controls

_SEQUENCE = re.compile(
    r"\x1b\[[0-9;?]*[ -/]*[@-~]|\x1bO."
)  # a key that is not a character, and the brackets of a paste
PASTE_ON, PASTE_OFF = "\x1b[?2004h", "\x1b[?2004l"
SHOW_CURSOR = "\x1b[?25h"


def is_dumb() -> bool:
    """Return whether the terminal can only write one line after the other."""
    return os.environ.get("TERM", "dumb") in ("dumb", "unknown", "")


@contextmanager
def keys_as_typed() -> Iterator[None]:
    """For as long as a chat lasts, keep each key as it is typed until a prompt reads it.

    Between two prompts the terminal would otherwise take some of them itself: a Ctrl-D as the end of a line, which is lost.
    """
    with _lines_edited(edited=False):
        yield


@contextmanager
def typing_ahead() -> Iterator[None]:
    """Between two prompts, keep what is typed for the next one, unseen; Ctrl-C still interrupts, and Ctrl-Z stops."""
    with _lines_edited(edited=False), _pastes_bracketed(bracketed=True), _stoppable():
        yield


@contextmanager
def other_program() -> Iterator[None]:
    """Lend another program, inside of `typing_ahead`, the terminal as programs expect it."""
    with _lines_edited(edited=True), _pastes_bracketed(bracketed=False):
        yield


def typed_ahead() -> str:
    """Take what was typed since the last prompt off the terminal: none of it was meant for a question that is only asked now."""
    if not console.is_terminal(sys.stdin):
        return ""
    raw = b""
    while select.select([sys.stdin], [], [], 0)[0] and (piece := os.read(sys.stdin.fileno(), 1 << 12)):
        raw += piece
    return strip_controls(_SEQUENCE.sub("", decode(raw).replace("\r", "\n")))


@contextmanager
def _stoppable() -> Iterator[None]:
    """While Ctrl-Z has stopped this program, lend the shell the terminal as shells expect it, with a cursor."""
    if not console.is_terminal(sys.stdout) or signal.getsignal(signal.SIGTSTP) is not signal.SIG_DFL:
        yield
        return

    def stop(number: int, _frame: FrameType | None) -> None:
        with other_program():
            _write(SHOW_CURSOR)
            signal.signal(number, signal.SIG_DFL)
            os.kill(os.getpid(), number)
            signal.signal(number, stop)

    signal.signal(signal.SIGTSTP, stop)
    try:
        yield
    finally:
        signal.signal(signal.SIGTSTP, signal.SIG_DFL)


@contextmanager
def _lines_edited(*, edited: bool) -> Iterator[None]:
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


@contextmanager
def _pastes_bracketed(*, bracketed: bool) -> Iterator[None]:
    """Have the terminal mark pastes, or not, and set it back afterwards."""
    if not (console.is_terminal(sys.stdin) and console.is_terminal(sys.stdout)) or is_dumb():
        yield
        return
    _write(PASTE_ON if bracketed else PASTE_OFF)
    try:
        yield
    finally:
        with suppress(OSError):  # the terminal is gone
            _write(PASTE_OFF if bracketed else PASTE_ON)


def _write(sequence: str) -> None:
    sys.stdout.write(sequence)
    sys.stdout.flush()
