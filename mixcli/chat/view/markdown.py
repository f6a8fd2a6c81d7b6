"""Render markdown line by line: a finished line becomes rows that are printed once and never redrawn.

Every line of an answer stands for itself, as people write in chats: a single newline is a new line. What reaches over lines is kept as
state: an open code fence, and the rows of a table, which is drawn when it ends because its columns need all of it.
"""

import re
from collections.abc import Callable
from dataclasses import dataclass, field

from rich.cells import cell_len, set_cell_size
from rich.text import Text

from mixcli.chat.view.inline import inline

CONTEXT = 100  # lines of code that are looked at for the colors of the next one
TAB = 4
MAX_TABLE = 200  # rows; a longer one is drawn in pieces

# lines come from a model and may have any length: no two parts of a pattern may match the same characters
FENCE = re.compile(r"^(\s*)(`{3,}|~{3,})\s*+([\w+#.-]*+)[^`]*+$")
HEADING = re.compile(r"^ {0,3}(#{1,6})\s+(.*)$")
RULE = re.compile(r"^ {0,3}([-*_])(\s*\1){2,}\s*$")
ITEM = re.compile(r"^(\s*)([-*+]|\d{1,9}[.)])\s+(\[[ xX]\]\s+)?(.*)$")
QUOTE = re.compile(r"^ {0,3}((?:>\s?)+)(.*)$")
TABLE_ROW = re.compile(r"^\s*\|.*")
TABLE_RULE = re.compile(r"^\s*+\|?(\s*+:?-++:?\s*+\|)++\s*+:?-*+:?\s*+$")

HEADINGS = {1: "bold underline", 2: "bold", 3: "bold italic"}
FENCE_STYLE, QUOTE_STYLE, MARK_STYLE, RULE_STYLE = "dim", "italic", "cyan", "dim"


@dataclass(frozen=True)
class Line:
    """One line to be drawn: its text, and the indent of the rows after the first. `exact` text is never broken between words."""

    text: Text
    hang: int = 0
    exact: bool = False

    def rows(self, width: int) -> list[Text]:
        """Break it into rows of at most `width` cells."""
        if not self.text.plain:
            return [Text()]
        hang = self.hang if self.hang < width // 2 else 0
        if cell_len(self.text.plain) <= width:
            return [self.text]
        rows = _folded(self.text, width) if self.exact else _wrapped(self.text, width, hang)
        for row in rows[1:]:
            row.pad_left(hang)
        return rows


@dataclass
class Fence:
    """An open block of code: the mark that will close it, its language, and its latest lines."""

    mark: str
    language: str
    lines: list[str] = field(default_factory=list)


class Markdown:
    """The state between two lines of an answer."""

    def __init__(self) -> None:
        self._fence: Fence | None = None
        self._table: list[str] = []

    def line(self, source: str) -> list[Line]:
        """Take a finished line and return what can be printed for good."""
        source = source.expandtabs(TAB)
        if self._fence:
            return self._code(self._fence, source)
        if TABLE_ROW.match(source):
            self._table.append(source)
            return self.close() if len(self._table) > MAX_TABLE else []
        done = self.close()
        if opened := FENCE.match(source):
            self._fence = Fence(opened[2], opened[3])
            return [*done, Line(Text(source, FENCE_STYLE), exact=True)]
        return [*done, _drawn(source)]

    def preview(self, source: str) -> list[Line]:
        """Return how an unfinished line looks, with what is held back before it; nothing changes."""
        source = source.expandtabs(TAB)
        if self._fence:
            return [Line(_colored([source], self._fence.language), exact=True)] if source else []
        held = (
            table([*self._table, source] if TABLE_ROW.match(source) else self._table) if self._table else []
        )
        if TABLE_ROW.match(source):
            return held or [_drawn(source)]
        return [*held, _drawn(source)] if source else held

    def split(self, source: str, width: int, n_rows: int) -> tuple[str, str] | None:
        """Cut an unfinished line after its first `n_rows` rows, so that both halves look as the whole did; None where that cannot be.

        The second half starts with the indent of the rows that it continues.
        """
        if self._fence or self._table or TABLE_ROW.match(source):
            return None
        line = _drawn(source)
        rows = [row.plain.rstrip() for row in line.rows(width)]
        if len(rows) <= n_rows:
            return None
        words = sum(len(row.split()) for row in rows[:n_rows])
        characters = len("".join(rows[:n_rows]).replace(" ", ""))
        for at in (_after_word(source, words), _after_character(source, characters)):
            head, tail = source[:at], " " * line.hang + source[at:].lstrip(" ")
            if [row.plain.rstrip() for row in _drawn(head).rows(width)] == rows[:n_rows] and [
                row.plain.rstrip() for row in _drawn(tail).rows(width)
            ] == rows[n_rows:]:
                return head, tail
        return None

    def close(self) -> list[Line]:
        """Return what was held back: the table, when it or the answer has ended."""
        rows, self._table = self._table, []
        return table(rows) if rows else []

    def _code(self, fence: Fence, source: str) -> list[Line]:
        if source.strip().startswith(fence.mark) and not source.strip().strip(fence.mark[0]):
            self._fence = None
            return [Line(Text(source, FENCE_STYLE), exact=True)]
        fence.lines = [*fence.lines[-CONTEXT:], source]
        return [Line(_colored(fence.lines, fence.language), exact=True)]


def cut(line: str, width: int) -> str:
    """Cut a line to the width; where the terminal does not wrap, the last cell would show the last character."""
    return line if cell_len(line) <= width else set_cell_size(line, width - 1) + "…"


def _after_word(source: str, number: int) -> int:
    """Return where word `number` of a text ends."""
    ends = [match.end() for match in re.finditer(r"\S+", source)]
    return ends[number - 1] if 0 < number <= len(ends) else 0


def _after_character(source: str, number: int) -> int:
    """Return where character `number` ends, spaces not counted."""
    at = 0
    for at, character in enumerate(source):
        number -= character != " "
        if number < 0:
            return at
    return len(source)


def _heading(match: re.Match[str]) -> Line:
    return Line(inline(match[2].rstrip().rstrip("#").rstrip(), HEADINGS.get(len(match[1]), "bold dim")))


def _rule(_match: re.Match[str]) -> Line:
    return Line(Text("─" * 24, RULE_STYLE))


def _item(match: re.Match[str]) -> Line:
    indent, mark, task, rest = match.groups()
    mark = mark if mark[0].isdigit() else "•"
    if task:
        mark = "☑" if "x" in task.lower() else "☐"
    text = Text(indent).append(mark, MARK_STYLE).append(" ")
    hang = cell_len(text.plain)
    return Line(text.append_text(inline(rest)), hang)


def _quote(match: re.Match[str]) -> Line:
    text = Text("▎ " * match[1].count(">"), MARK_STYLE)
    hang = cell_len(text.plain)
    return Line(Text.assemble(text, inline(match[2], QUOTE_STYLE)), hang)


# the first pattern that matches draws the line
DRAWN: tuple[tuple[re.Pattern[str], Callable[[re.Match[str]], Line]], ...] = (
    (HEADING, _heading),
    (RULE, _rule),
    (ITEM, _item),
    (QUOTE, _quote),
)


def _drawn(source: str) -> Line:
    for pattern, draw in DRAWN:
        if match := pattern.match(source):
            return draw(match)
    indent = len(source) - len(source.lstrip(" "))
    text = Text(" " * indent).append_text(inline(source[indent:].rstrip()))
    return Line(text, indent)


def table(sources: list[str]) -> list[Line]:
    """Draw the rows of a table with aligned columns; rows that do not form a table are drawn unchanged."""
    cells = [_cells(row) for row in sources if not TABLE_RULE.match(row)]
    if len(sources) < 2 or not cells or len(cells) == len(sources):
        return [_drawn(row) for row in sources]
    n = max(map(len, cells))
    drawn = [[inline(cell, "bold" if i == 0 else "") for cell in row] for i, row in enumerate(cells)]
    drawn = [[*row, *[Text()] * (n - len(row))] for row in drawn]
    widths = [max(cell_len(row[i].plain) for row in drawn) for i in range(n)]
    lines = []
    for number, row in enumerate(drawn):
        text = Text()
        for i, cell in enumerate(row):
            text.append_text(cell).append(" " * (widths[i] - cell_len(cell.plain) + 2 if i < n - 1 else 0))
        lines.append(Line(text, hang=2))
        if number == 0:
            lines.append(Line(Text("  ".join("─" * width for width in widths), RULE_STYLE), exact=True))
    return lines


def _cells(row: str) -> list[str]:
    inner = row.strip().removeprefix("|")
    if inner.endswith("|") and not inner.endswith("\\|"):
        inner = inner[:-1]
    return [cell.strip().replace("\\|", "|") for cell in re.split(r"(?<!\\)\|", inner)]


def _colored(lines: list[str], language: str) -> Text:
    """Return the last of some lines of code in colors."""
    from rich.syntax import Syntax

    plain = Text(lines[-1])
    if not language or not lines[-1].strip():
        return plain
    syntax = Syntax("", language, theme="ansi_dark", background_color="default")
    if syntax.lexer is None:
        return plain
    colored = syntax.highlight("\n".join(lines))
    colored.rstrip()
    last = colored.split("\n", allow_blank=True)[-1]
    return last if last.plain.rstrip() == plain.plain.rstrip() else plain


def _folded(text: Text, width: int) -> list[Text]:
    """Break a text anywhere, as a terminal does."""
    rows, start, used = [], 0, 0
    for at, character in enumerate(text.plain):
        cells = cell_len(character)
        if used + cells > width:
            rows.append(text[start:at])
            start, used = at, 0
        used += cells
    return [*rows, text[start:]]


def _wrapped(text: Text, width: int, hang: int) -> list[Text]:
    """Break a text between words; words that are too long, and scripts without spaces, anywhere."""
    rows, start, room = [], 0, width
    plain = text.plain
    while (cut := _cut(plain, start, room)) < len(plain):
        rows.append(text[start:cut])
        start, room = cut, width - hang
    rows.append(text[start:])
    for row in rows[:-1]:
        row.rstrip()
    return rows


def _cut(plain: str, start: int, room: int) -> int:
    """Return where a row that begins at `start` ends: after its last space, or where it is full; spaces may hang over."""
    used, space = 0, -1
    for at in range(start, len(plain)):
        character = plain[at]
        used += cell_len(character)
        if used > room and character != " ":
            return space + 1 if space >= 0 else max(at, start + 1)
        if character == " ":
            space = at
    return len(plain)
