"""What the terminal does with keys between two prompts of a chat, and while another program has it."""

import os
import re
import select
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress

from mixcli.system.console import console
from mixcli.system.stdin import decode
from mixcli.system.terminal import SHOW_CURSOR, lent_while_stopped, lines_edited, write
from mixcli.system.text import strip_controls

_SEQUENCE = re.compile(
    r"\x1b\[[0-9;?]*[ -/]*[@-~]|\x1bO."
)  # a key that is not a character, and the brackets of a paste
PASTE_ON, PASTE_OFF = "\x1b[?2004h", "\x1b[?2004l"


def is_dumb() -> bool:
    """Return whether the terminal can only write one line after the other."""
    return os.environ.get("TERM", "dumb") in ("dumb", "unknown", "")


@contextmanager
def keys_as_typed() -> Iterator[None]:
    """For as long as a chat lasts, keep each key as it is typed until a prompt reads it.

    Between two prompts the terminal would otherwise take some of them itself: a Ctrl-D as the end of a line, which is lost.
    """
    with lines_edited(edited=False):
        yield


@contextmanager
def typing_ahead() -> Iterator[None]:
    """Between two prompts, keep what is typed for the next one, unseen; Ctrl-C still interrupts, and Ctrl-Z stops."""
    with lines_edited(edited=False), _pastes_bracketed(bracketed=True), lent_while_stopped(_shell):
        yield


@contextmanager
def other_program() -> Iterator[None]:
    """Lend another program, inside of `typing_ahead`, the terminal as programs expect it."""
    with lines_edited(edited=True), _pastes_bracketed(bracketed=False):
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
def _shell() -> Iterator[None]:
    """Lend the shell the terminal, with a cursor."""
    with other_program():
        write(SHOW_CURSOR)
        yield


@contextmanager
def _pastes_bracketed(*, bracketed: bool) -> Iterator[None]:
    """Have the terminal mark pastes, or not, and set it back afterwards."""
    if not (console.is_terminal(sys.stdin) and console.is_terminal(sys.stdout)) or is_dumb():
        yield
        return
    write(PASTE_ON if bracketed else PASTE_OFF)
    try:
        yield
    finally:
        with suppress(OSError):  # the terminal is gone
            write(PASTE_OFF if bracketed else PASTE_ON)
