"""Break sentences for a terminal between words, where the terminal would break them anywhere."""

import re
import unicodedata

_PIECE = re.compile(r"(\s*)(`[^`\n]*`\S*|\S+)")  # a command in backticks is one piece, to be copied as it is


def wrapped(text: str, width: int) -> str:
    """Return text with line ends between words, so that each line fits `width` columns; a line continues below its own beginning.

    What does not fit in a line of its own is left to the terminal, so that a copied path or command has no line end in it.
    """
    return "\n".join(_wrapped_line(line, width) for line in text.split("\n"))


def _wrapped_line(line: str, width: int) -> str:
    if _columns(line) <= width:
        return line
    indent = line[: len(line) - len(line.lstrip())]
    lines, used = [""], 0
    for gap, piece in _PIECE.findall(line):
        fits = used + _columns(gap + piece) <= width or not lines[-1].strip()
        begun = gap + piece if fits else indent + piece
        lines[-1:] = [lines[-1] + begun] if fits else [lines[-1], begun]
        used = used + _columns(begun) if fits else _columns(begun)
    end = line[len(line.rstrip()) :]  # of a question, before its answer
    return "\n".join(lines) + end


def _columns(text: str) -> int:
    """Return how many columns of a terminal a text takes."""
    return len(text) if text.isascii() else sum(map(_width_of, text))


def _width_of(char: str) -> int:
    if unicodedata.combining(char):
        return 0
    return 2 if unicodedata.east_asian_width(char) in "WF" else 1


__all__ = ["wrapped"]
