"""Tables for a terminal: columns as wide as their words, or a block for each row where the terminal is too narrow."""

import re
from collections.abc import Iterator, Sequence

from rich.console import Group, RenderableType
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

NAMES = {
    "MODEL",
    "NAME",
    "CONVERSATION",
}  # columns of names that are there to be copied: they stay in one line
GAP, INDENT = 2, 2  # columns of the terminal between two of a table, and before the fields of a block
SHORTEST = 8  # characters of a word that stays whole: where not even those fit, each row is a block
_PART = re.compile(r"[^\s/-]+[/-]?|[/-]")  # of words, that may stand alone in a line


def drawn(columns: Sequence[str], rows: Sequence[Sequence[str]], width: int) -> RenderableType:
    """Return a table of `width`: drawn in columns, or in a block for each row where their words would be split."""
    lines = [[Text(cell) for cell in row] for row in (columns, *rows)]
    natural = [max(cell.cell_len for cell in column) for column in zip(*lines, strict=True)]
    least = [max(map(_longest_part, column)) for column in zip(*lines, strict=True)]
    room = width - GAP * (len(columns) - 1)
    fixed = [size if name.upper() in NAMES else 0 for name, size in zip(columns, natural, strict=True)]

    def widest(sizes: Sequence[int], floor: Sequence[int], start: int) -> int:
        """Return the largest limit to the columns' widths that the room allows; 0 for none from `start` on."""
        return max(
            (
                n
                for n in range(start, room + 1)
                if sum(map(max, (min(one, n) for one in sizes), floor)) <= room
            ),
            default=0,
        )

    part = widest(least, fixed, SHORTEST)
    if not part and len(columns) > 2 and any(columns):
        return Group(*_blocks(columns, rows, width))
    floor = [max(min(one, part), name) for one, name in zip(least, fixed, strict=True)]
    limit = widest(natural, floor, 1)
    widths = [max(low, min(one, limit)) if limit else None for low, one in zip(floor, natural, strict=True)]
    return _table(columns, rows, widths)


def _longest_part(cell: Text) -> int:
    return max(map(len, _PART.findall(cell.plain)), default=0)


def _parted(cell: str, width: int) -> str:
    """Return a cell with a line end after hyphens and slashes of words that are longer than the column, so that each line fits."""

    def packed(word: re.Match[str]) -> str:
        lines = [""]
        for part in _PART.findall(word[0]):
            if lines[-1] and len(lines[-1] + part) > width:
                lines.append("")
            lines[-1] += part
        return "\n".join(lines)

    return re.sub(rf"\S{{{width + 1},}}", packed, cell)


def _table(
    columns: Sequence[str], rows: Sequence[Sequence[str]], widths: Sequence[int | None]
) -> RenderableType:
    table = Table(box=None, pad_edge=False, header_style="bold", show_header=any(columns))
    for column, width in zip(columns, widths, strict=True):
        table.add_column(column, overflow="fold", width=width)
    for row in rows:
        table.add_row(
            *(Text(_parted(cell, width or len(cell))) for cell, width in zip(row, widths, strict=True))
        )
    return table


def _blocks(columns: Sequence[str], rows: Sequence[Sequence[str]], width: int) -> Iterator[RenderableType]:
    """Yield the first column's name, and each row as its first cell and below it the other fields with their names, as many in a line as fit."""
    yield Text(columns[0], style="dim")
    for first, *others in rows:
        yield Text(first, style="bold", overflow="fold")
        lines = [Text()]
        for column, cell in zip(columns[1:], others, strict=True):
            piece = Text.assemble((column, "dim"), " " if column else "", cell)
            if cell and lines[-1] and lines[-1].cell_len + GAP + piece.cell_len > width - INDENT:
                lines.append(Text())
            if cell:
                lines[-1] = Text(" " * GAP).join((lines[-1], piece)) if lines[-1] else piece
        yield Padding(Group(*filter(None, lines)), (0, 0, 0, INDENT))


__all__ = ["drawn"]
